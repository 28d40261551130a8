// Pairs of tokens, and the merges of a vocabulary: which pairs they join, and between which characters no token reaches, so
// that a piece may be cut there without changing its ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace alilama {

using TokenId = uint32_t;
using Pair = std::pair<TokenId, TokenId>;

// A hash table from pairs of token ids to 32-bit values: open addressing, no deletion.
class PairMap {
public:
    static constexpr uint32_t kMissing = 0xFFFFFFFF;

    PairMap() : slots_(1024) {}

    // The value of the pair, kMissing if it has none.
    uint32_t find(TokenId left, TokenId right) const { return slots_[slot_of(key_of(left, right))].value; }

    // The value of the pair, which becomes `value` if it had none. The reference holds until the next insertion.
    uint32_t& find_or_insert(TokenId left, TokenId right, uint32_t value) {
        if (size_ * 2 >= slots_.size()) grow();
        Slot& slot = slots_[slot_of(key_of(left, right))];
        if (slot.value == kMissing) {
            slot = {key_of(left, right), value};
            ++size_;
        }
        return slot.value;
    }

private:
    struct Slot {
        uint64_t key = 0;
        uint32_t value = kMissing;
    };

    static uint64_t key_of(TokenId left, TokenId right) { return uint64_t{left} << 32 | right; }

    size_t slot_of(uint64_t key) const {
        const size_t mask = slots_.size() - 1;
        uint64_t hash = key * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
        size_t slot = hash & mask;
        while (slots_[slot].value != kMissing && slots_[slot].key != key) slot = (slot + 1) & mask;
        return slot;
    }

    void grow() {
        std::vector<Slot> old(slots_.size() * 2);
        old.swap(slots_);
        for (const Slot& slot : old)
            if (slot.value != kMissing) slots_[slot_of(slot.key)] = slot;
    }

    std::vector<Slot> slots_;
    size_t size_ = 0;
};

// The pair of neighbours (left, right) becomes `result`.
struct Merge {
    TokenId left, right, result;
};

// Merges by their rank and by the pair they join. Most pairs that are asked for have none: a bit for the place of each pair
// tells it from a table an eighth as large.
class Merges {
public:
    static constexpr uint32_t kMissing = 0xFFFFFFFF;

    // Throws std::invalid_argument if a pair comes twice, and std::length_error if there are more than 2^31.
    explicit Merges(const std::vector<Merge>& merges);

    size_t size() const { return merges_.size(); }
    const Merge& operator[](uint32_t rank) const { return merges_[rank]; }

    // The rank of the merge that joins the pair, kMissing if none does.
    uint32_t find(TokenId left, TokenId right) const {
        const uint64_t hash = hash_of(left, right);
        const uint64_t bit = hash >> filter_shift_;
        if (!(filter_[bit >> 6] >> (bit & 63) & 1)) return kMissing;
        const size_t mask = slots_.size() - 1;
        for (size_t i = hash >> slot_shift_;; i = (i + 1) & mask) {
            const Slot& slot = slots_[i];
            if (slot.rank == kMissing) return kMissing;
            if (slot.tag == static_cast<uint32_t>(hash) && merges_[slot.rank].left == left && merges_[slot.rank].right == right)
                return slot.rank;
        }
    }

private:
    static constexpr int kLeastBits = 10;  // of the slots
    static constexpr size_t kMaxMerges = size_t{1} << 31;

    struct Slot {
        uint32_t tag = 0, rank = kMissing;
    };

    static uint64_t hash_of(TokenId left, TokenId right) {
        const uint64_t hash = (uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15u;
        return hash ^ hash >> 32;
    }

    std::vector<Merge> merges_;
    std::vector<uint64_t> filter_;
    std::vector<Slot> slots_;  // open addressing, at most half full
    int filter_shift_, slot_shift_;
};

// Knows the pairs of neighbouring characters of three bytes that some token holds. No merge crosses a place whose pair is not
// among them, so what stands on its two sides is merged independently. Where tokens begin or end within a character, the
// pair is known by the two bytes that meet.
class Joins {
public:
    // The first code point that is worth asking for: Kana and Han come after it; of the alphabets before it nearly all pairs
    // stand in some token.
    static constexpr uint32_t kFirst = 0x3000;

    explicit Joins(size_t num_tokens) {
        while (bits_ < kMostBits && (size_t{1} << bits_) < 32 * num_tokens) ++bits_;
        pairs_.resize((size_t{1} << bits_) / 64);
        bytes_.resize(65536 / 64);
    }

    // Adds the pairs within a token.
    void add(std::string_view token);

    // Whether a token may hold the characters `left` and `right`, of three bytes, side by side. Wrongly so for a few pairs
    // in a hundred.
    bool may_join(uint32_t left, uint32_t right) const {
        const bool is_known = is_set(pairs_, place_of(left, right)),
                   may_be = is_set(bytes_, place_of_bytes(left >> 16, right & 0xFF));
        return is_known || may_be;  // both are asked, without a branch
    }

private:
    static bool is_set(const std::vector<uint64_t>& bits, size_t i) { return bits[i >> 6] >> (i & 63) & 1; }
    static void set(std::vector<uint64_t>& bits, size_t i) { bits[i >> 6] |= uint64_t{1} << (i & 63); }
    static size_t place_of_bytes(uint32_t left, uint32_t right) { return size_t{left} << 8 | right; }
    size_t place_of(uint32_t left, uint32_t right) const {
        return ((uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15u) >> (64 - bits_);
    }

    static constexpr int kLeastBits = 15, kMostBits = 22;

    int bits_ = kLeastBits;
    std::vector<uint64_t> pairs_;  // a bit for each place a pair may have
    std::vector<uint64_t> bytes_;  // by last and first byte
};

}  // namespace alilama
