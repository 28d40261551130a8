#include "merges.hpp"

#include <stdexcept>
#include <string>

namespace alilama {

Merges::Merges(const std::vector<Merge>& merges) : merges_(merges) {
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

}  // namespace alilama
