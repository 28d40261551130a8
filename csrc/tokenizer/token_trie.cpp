#include "token_trie.hpp"

#include <algorithm>

namespace alilama {

TokenTrie::TokenTrie(std::vector<std::pair<std::string_view, TokenId>> tokens) {
    struct Range {  // of the tokens that begin with a node's bytes, of which there are `depth`
        uint32_t node;
        size_t begin, end, depth;
    };
    std::sort(tokens.begin(), tokens.end());
    add_block();
    nodes_[kRoot].parent = kNoParent;
    std::vector<Range> ranges = {{kRoot, 0, tokens.size(), 0}};  // level by level, so that what is often met lies together
    std::vector<Child> children;
    for (size_t i = 0; i < ranges.size(); ++i) {
        const auto [node, begin, end, depth] = ranges[i];
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
            ranges.push_back({child, children[c].begin, c + 1 < children.size() ? children[c + 1].begin : end, depth + 1});
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

}  // namespace alilama
