// The merges of a vocabulary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pair_map.hpp"

namespace alilama {

// The pair of neighbours (left, right) becomes `result`.
struct Merge {
    TokenId left, right, result;
};

// Merges by their rank and by the pair they join. Most pairs that are asked for have none: a bit for the place of each pair
// tells it from a table an eighth as large.
class Merges {
public:
    static constexpr uint32_t kMissing = 0xFFFFFFFF;

    // Throws std::invalid_argument if a pair comes twice.
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

}  // namespace alilama
