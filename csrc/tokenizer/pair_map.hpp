// A hash table from pairs of token ids to 32-bit values: open addressing, no deletion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace alilama {

using TokenId = uint32_t;
using Pair = std::pair<TokenId, TokenId>;

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

}  // namespace alilama
