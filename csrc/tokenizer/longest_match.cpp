#include "longest_match.hpp"

#include <algorithm>
#include <queue>

namespace alilama {

TokenTrie::TokenTrie(std::vector<std::pair<std::string_view, TokenId>> tokens) {
    struct Range {  // of the tokens that begin with a node's bytes, of which there are `depth`
        uint32_t node;
        size_t begin, end, depth;
    };
    std::sort(tokens.begin(), tokens.end());
    add_block();
    nodes_[kRoot].parent = kNoParent;
    std::queue<Range> ranges({{kRoot, 0, tokens.size(), 0}});  // level by level, so that what is often met lies together
    std::vector<Child> children;
    for (; !ranges.empty(); ranges.pop()) {
        const auto [node, begin, end, depth] = ranges.front();
        children.clear();
        for (size_t t = begin; t < end; ++t) {
            if (tokens[t].first.size() == depth) {
                nodes_[node].base = kIsToken;
                tokens_[node] = tokens[t].second;
                continue;
            }
            const auto byte = static_cast<uint8_t>(tokens[t].first[depth]);
            if (children.empty() || children.back().byte != byte) children.push_back({byte, t});
        }
        if (children.empty()) continue;
        const uint32_t base = find_base(children);
        nodes_[node].base |= base;
        for (size_t c = 0; c < children.size(); ++c) {
            const uint32_t child = base ^ children[c].byte;
            nodes_[child].parent = node;
            ranges.push({child, children[c].begin, c + 1 < children.size() ? children[c + 1].begin : end, depth + 1});
        }
    }
}

// A base whose places for the children are free. A lone child takes the first free place; several are tried in the last two
// blocks, for there is little room in those before.
uint32_t TokenTrie::find_base(const std::vector<Child>& children) {
    const auto is_free = [&](size_t node) { return nodes_[node].parent == kFree; };
    while (first_free_ < nodes_.size() && !is_free(first_free_)) ++first_free_;
    size_t place = first_free_;
    if (children.size() > 1 && nodes_.size() > 2 * kBlock) place = std::max(place, nodes_.size() - 2 * kBlock);
    for (;; ++place) {
        if (place == nodes_.size()) add_block();
        const size_t base = place ^ children[0].byte;
        if (std::all_of(children.begin(), children.end(), [&](const Child& child) { return is_free(base ^ child.byte); }))
            return static_cast<uint32_t>(base);
    }
}

void TokenTrie::add_block() {
    nodes_.resize(nodes_.size() + kBlock);
    tokens_.resize(nodes_.size());
}

// The merges that come after all that make their parts.
std::vector<Merge> LongestMatch::without_early(const Merges& merges, size_t num_ids) {
    std::vector<uint32_t> made(num_ids);  // after how many merges each token is made at the latest
    for (uint32_t rank = 0; rank < merges.size(); ++rank) made[merges[rank].result] = rank + 1;
    std::vector<Merge> found;
    for (uint32_t rank = 0; rank < merges.size(); ++rank)
        if (made[merges[rank].left] <= rank && made[merges[rank].right] <= rank) found.push_back(merges[rank]);
    return found;
}

// Whether a merge that was left out can ever be done.
bool LongestMatch::can_do_early(const Merges& merges) const {
    if (merges.size() == merges_.size()) return false;
    int64_t steps = 0;  // which are not bounded here
    for (uint32_t rank = 0; rank < merges.size(); ++rank) {
        const auto [left, right, result] = merges[rank];
        if (merges_.find(left, right) == Merges::kMissing && tokens_[left].size > 0 && tokens_[right].size > 0 &&
            stay_apart(left, right, Merges::kMissing, steps))
            return true;
    }
    return false;
}

// Fills the parts of the tokens that their own bytes merge to, and returns these in the order in which they are made. Of
// several merges that make one token only one is ever done.
std::vector<TokenId> LongestMatch::find_tokens(const std::array<TokenId, 256>& byte_ids) {
    std::vector<TokenId> found(byte_ids.begin(), byte_ids.end());
    std::vector<bool> is_found(tokens_.size());
    int64_t steps = 0;  // which are not bounded here
    for (const TokenId id : found) is_found[id] = true;
    for (uint32_t rank = 0; rank < merges_.size(); ++rank) {
        const auto [left, right, result] = merges_[rank];
        if (!is_found[left] || !is_found[right] || !stay_apart(left, right, rank, steps)) continue;
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
