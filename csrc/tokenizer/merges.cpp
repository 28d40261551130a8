#include "merges.hpp"

#include <stdexcept>
#include <string>

#include "unicode.hpp"

namespace alilama {
namespace {

// Size of the character that the first byte announces, 0 if it can begin none.
size_t announced_size(uint8_t byte) { return byte < 0x80 ? 1 : byte < 0xC0 ? 0 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4; }

// The three bytes at `p` as a number, the first one lowest.
uint32_t read_three(const uint8_t* p) { return p[0] | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16; }

}  // namespace

Merges::Merges(const std::vector<Merge>& merges) : merges_(merges) {
    if (merges.size() > kMaxMerges) throw std::length_error("there are more than 2^31 merges");
    int bits = kLeastBits;
    while ((size_t{1} << bits) < 2 * merges.size()) ++bits;
    slot_shift_ = 64 - bits;
    slots_.resize(size_t{1} << bits);
    filter_shift_ = slot_shift_ - 3;  // 16 bits for each merge or more
    filter_.resize((size_t{1} << (bits + 3)) / 64);
    for (uint32_t rank = 0; rank < merges.size(); ++rank) {
        const auto [left, right, result] = merges[rank];
        if (find(left, right) != kMissing)
            throw std::invalid_argument("merge " + std::to_string(rank) + " joins the same pair as an earlier one");
        const uint64_t hash = hash_of(left, right), bit = hash >> filter_shift_;
        filter_[bit >> 6] |= uint64_t{1} << (bit & 63);
        size_t i = hash >> slot_shift_;
        while (slots_[i].rank != kMissing) i = (i + 1) & (slots_.size() - 1);
        slots_[i] = {static_cast<uint32_t>(hash), rank};
    }
}

void Joins::add(std::string_view token) {
    const auto* p = reinterpret_cast<const uint8_t*>(token.data());
    for (size_t i = 1; i < token.size(); ++i) {
        if (continues_char(p[i])) continue;
        size_t begin = i - 1, end = i + 1;
        while (begin > 0 && continues_char(p[begin])) --begin;
        while (end < token.size() && continues_char(p[end])) ++end;
        const size_t left_size = i - begin, right_size = announced_size(p[i]);
        if (announced_size(p[begin]) != left_size || right_size == 0 || i + right_size > end) {
            set(bytes_, place_of_bytes(p[i - 1], p[i]));
        } else if (left_size == 3 && right_size == 3) {
            set(pairs_, place_of(read_three(p + begin), read_three(p + i)));
        }
    }
}

}  // namespace alilama
