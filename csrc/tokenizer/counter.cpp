#include "counter.hpp"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

namespace alilama {

void PieceCounter::add_text(const Pattern& pattern, std::string_view text) {
    const auto* begin = reinterpret_cast<const uint8_t*>(text.data());
    for_each_piece(pattern, begin, begin + text.size(), [&](const uint8_t* p, size_t size) {
        if (size <= PieceKey::kMaxShort) {
            add_short(short_key(p, size), 1);
        } else {
            add_long(p, size, 1);
        }
    });
}

void PieceCounter::add_piece(std::string_view piece, int64_t count) {
    if (piece.empty()) return;
    if (piece.size() > PieceKey::kMaxShort)
        return add_long(reinterpret_cast<const uint8_t*>(piece.data()), piece.size(), count);
    uint8_t bytes[16] = {};
    std::memcpy(bytes, piece.data(), piece.size());
    add_short(short_key(bytes, piece.size()), count);
}

inline void PieceCounter::add_short(const PieceKey& key, int64_t count) {
    const size_t mask = slots_.size() - 1;
    for (size_t i = key.hash() >> (64 - bits_);; i = (i + 1) & mask) {
        Slot& slot = slots_[i];
        if (slot.key == key) {
            slot.count += count;
            return;
        }
        if (slot.key.empty()) return insert(slot, key, count);
    }
}

void PieceCounter::add_long(const uint8_t* p, size_t size, int64_t count) {
    for (; size > kMaxPiece; p += kMaxPiece, size -= kMaxPiece) add_long(p, kMaxPiece, count);
    if (size <= PieceKey::kMaxShort) return add_piece({reinterpret_cast<const char*>(p), size}, count);
    const PieceKey key = long_key(p, size);
    const std::string_view piece(reinterpret_cast<const char*>(p), size);
    const size_t mask = slots_.size() - 1;
    for (size_t i = key.hash() >> (64 - bits_);; i = (i + 1) & mask) {
        Slot& slot = slots_[i];
        if (slot.key == key && bytes_of(slot) == piece) {
            slot.count += count;
            return;
        }
        if (slot.key.empty()) {
            slot.offset = long_bytes_.size();
            long_bytes_.insert(long_bytes_.end(), piece.begin(), piece.end());
            return insert(slot, key, count);
        }
    }
}

void PieceCounter::insert(Slot& slot, const PieceKey& key, int64_t count) {
    slot.key = key;
    slot.count = count;
    piece_bytes_ += key.size();
    if (++num_pieces_ * 2 > slots_.size()) grow();
}

void PieceCounter::grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    ++bits_;
    const size_t mask = slots_.size() - 1;
    for (const Slot& slot : old) {
        if (slot.key.empty()) continue;
        size_t i = slot.key.hash() >> (64 - bits_);
        while (!slots_[i].key.empty()) i = (i + 1) & mask;
        slots_[i] = slot;
    }
}

void PieceCounter::merge(PieceCounter& other) {
    if (num_pieces_ < other.num_pieces_) std::swap(*this, other);
    other.for_each([&](std::string_view piece, int64_t count) { add_piece(piece, count); });
    other = PieceCounter();
}

size_t PieceCounter::drop_rarest(size_t limit) {
    if (num_bytes() <= limit) return 0;
    std::vector<const Slot*> order;
    order.reserve(num_pieces_);
    for (const Slot& slot : slots_)
        if (!slot.key.empty()) order.push_back(&slot);
    std::sort(order.begin(), order.end(), [&](const Slot* a, const Slot* b) {
        // The hash is mixed once more: insertion in the order of its upper bits, which are the places in the table, would
        // fill the table from its beginning, where every new piece would have to pass all earlier ones.
        const auto rank = [](const Slot* slot) {
            return std::make_tuple(-slot->count, slot->key.hash() * 0x9E3779B97F4A7C15u);
        };
        return rank(a) != rank(b) ? rank(a) < rank(b) : bytes_of(*a) < bytes_of(*b);
    });
    PieceCounter kept;
    size_t i = 0;
    for (; i < order.size(); ++i) {
        const std::string_view piece = bytes_of(*order[i]);
        if (kept.num_bytes() + kBytesPerPiece + kBytesPerByte * piece.size() > limit) break;
        kept.add_piece(piece, order[i]->count);
    }
    *this = std::move(kept);
    return order.size() - i;
}

}  // namespace alilama
