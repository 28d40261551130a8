// Finds the longest token that a text begins with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "merges.hpp"

namespace alilama {

// A trie as a double array (Aoe 1989, IEEE Transactions on Software Engineering 15): the child of a node by a byte is the node
// at `base ^ byte` if its parent is that node, so that a step is one read.
class TokenTrie {
public:
    struct Match {
        TokenId token;
        const uint8_t* end;
    };

    // Tokens are not empty, and all different. O(bytes of all tokens).
    explicit TokenTrie(std::vector<std::pair<std::string_view, TokenId>> tokens);

    // The longest token that begins at `p` (p < end) and does not reach beyond `end`. The byte at `p` must be a token.
    Match longest(const uint8_t* p, const uint8_t* end) const {
        uint32_t node = kRoot, last = kRoot, base = nodes_[kRoot].base;
        const uint8_t* last_end = p;
        do {
            const uint32_t child = (base & ~kIsToken) ^ *p;
            if (nodes_[child].parent != node) break;
            node = child;
            base = nodes_[child].base;
            ++p;
            if (base & kIsToken) {
                last = node;
                last_end = p;
            }
        } while (p < end);
        return {tokens_[last], last_end};
    }

private:
    static constexpr uint32_t kRoot = 0, kFree = 0xFFFFFFFF, kNoParent = 0xFFFFFFFE;
    static constexpr uint32_t kIsToken = uint32_t{1} << 31;
    static constexpr size_t kBlock = 256;  // nodes that a base reaches

    struct Node {
        uint32_t base = 0;  // of its children, with kIsToken if a token ends here
        uint32_t parent = kFree;
    };
    struct Child {
        uint8_t byte;
        size_t begin;  // of its tokens
    };

    uint32_t find_base(const std::vector<Child>& children);
    void add_block();

    std::vector<Node> nodes_;
    std::vector<TokenId> tokens_;  // by node
    size_t first_free_ = kRoot + 1;
};

}  // namespace alilama
