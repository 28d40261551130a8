#include "longest_match.hpp"

#include <algorithm>

namespace alilama {

bool LongestMatch::is_exact_for(const Merges& merges, const std::array<TokenId, 256>& byte_ids, size_t num_ids) {
    std::vector<uint32_t> made(num_ids);  // after how many merges each token is made at the latest
    for (uint32_t rank = 0; rank < merges.size(); ++rank) made[merges[rank].result] = rank + 1;
    for (uint32_t rank = 0; rank < merges.size(); ++rank)
        if (made[merges[rank].left] > rank || made[merges[rank].right] > rank) return false;
    return std::all_of(byte_ids.begin(), byte_ids.end(), [&](TokenId id) { return made[id] == 0; });
}

// Fills the parts of the tokens that their own bytes merge to, and returns these in the order in which they are made. Of
// several merges that make one token only one is ever done.
std::vector<TokenId> LongestMatch::find_tokens(const std::array<TokenId, 256>& byte_ids) {
    std::vector<TokenId> found(byte_ids.begin(), byte_ids.end());
    std::vector<bool> is_found(tokens_.size());
    for (const TokenId id : found) is_found[id] = true;
    for (uint32_t rank = 0; rank < merges_.size(); ++rank) {
        const auto [left, right, result] = merges_[rank];
        if (!is_found[left] || !is_found[right] || is_found[result] || !stay_apart(left, right, rank)) continue;
        is_found[result] = true;
        tokens_[result].last = {rank + 1, right};
        tokens_[result].first = {rank + 1, left};
        found.push_back(result);
    }
    leave_out_parts(found);
    return found;
}

// Marks the tokens whose parts no merge can take before the token is made, as the bytes of most characters: `stay_apart` need
// not go on to them.
void LongestMatch::leave_out_parts(const std::vector<TokenId>& tokens) {
    constexpr uint32_t kNever = 0xFFFFFFFF;
    std::vector<uint32_t> as_left(tokens_.size(), kNever), as_right(tokens_.size(), kNever);  // lowest rank of a merge of it
    for (auto rank = static_cast<uint32_t>(merges_.size()); rank-- > 0;)
        as_left[merges_[rank].left] = as_right[merges_[rank].right] = rank;
    // The same of the tokens at its end and beginning that it is made of. They come before it.
    std::vector<uint32_t> last_as_left(tokens_.size(), kNever), first_as_right(tokens_.size(), kNever);
    for (const TokenId id : tokens) {
        Token& token = tokens_[id];
        if (token.last.made == 0) continue;  // a byte
        last_as_left[id] = std::min(as_left[token.last.id], last_as_left[token.last.id]);
        first_as_right[id] = std::min(as_right[token.first.id], first_as_right[token.first.id]);
    }
    for (const TokenId id : tokens) {
        Token& token = tokens_[id];
        if (last_as_left[id] >= token.last.made) token.last.made = 0;
        if (first_as_right[id] >= token.first.made) token.first.made = 0;
    }
}

}  // namespace alilama
