// The tokens of a piece, found by their bytes instead of by its merges.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "merges.hpp"

namespace alilama {

// Finds the longest token that a text begins with. A trie as a double array (Aoe 1989, IEEE Transactions on Software
// Engineering 15): the child of a node by a byte is the node at `base ^ byte` if its parent is that node, so that a step is one
// read.
class TokenTrie {
public:
    struct Match {
        TokenId token;
        const uint8_t *end, *read;  // of the token, and of the bytes that were read
    };

    // Tokens are not empty, and all different.
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
        return {tokens_[last], last_end, p};
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

// Takes the longest token and goes back where it cannot be (GitHub's rust-gems, crate `bpe`). Why that is exact:
//
// No merge ever crosses a border between two tokens of the result, so what stands between two borders is merged as if it stood
// alone: each token is what its own bytes merge to, and any two neighbours are what the bytes of both merge to. The other way
// round, if no two neighbours of a row of such tokens merge across their border when they stand alone, no merge ever crosses
// one in the row, and the row is the result. So the row is found by comparing neighbours, and it is the only one. For the same
// reason the bytes up to any place have one such row only: where one was followed in vain, none has to be tried again. Two
// neighbours are compared by undoing their merges, which needs merges that are done by ascending rank, as they are if every
// merge comes after those that make its parts. Others are left out: if no two tokens that they join ever stay apart without
// them, none is ever the first of them to be done.
class LongestMatch {
public:
    // `bytes_of(id)` are the bytes of a token; ids are below `num_ids`.
    template <class BytesOf>
    LongestMatch(const Merges& merges, const std::array<TokenId, 256>& byte_ids, size_t num_ids, BytesOf&& bytes_of)
        : merges_(without_early(merges, num_ids)), tokens_(num_ids) {
        std::vector<std::pair<std::string_view, TokenId>> tokens;
        for (const TokenId id : find_tokens(byte_ids)) tokens.emplace_back(bytes_of(id), id);
        for (const auto& [bytes, id] : tokens) tokens_[id].size = static_cast<uint32_t>(bytes.size());
        trie_.emplace(tokens);
        for (const auto& [bytes, id] : tokens) {
            if (bytes.size() == 1) continue;
            const auto* const p = reinterpret_cast<const uint8_t*>(bytes.data());
            tokens_[id].prefix = trie_->longest(p, p + bytes.size() - 1).token;
        }
        is_exact_ = !can_do_early(merges);
    }

    // Whether it encodes as the merges do: it does where none is ever done that comes before one that makes its part. Where a
    // vocabulary was learned there is none; a list of all ways to split each token, as Llama 3's, has some.
    bool is_exact() const { return is_exact_; }

    // Writes the ids of a piece to `out`, which needs room for `size` of them, and returns their end. Returns nullptr where
    // that takes too many steps, as among tokens of one letter of any number, and leaves something in `out`. O(size).
    template <class Id>
    Id* encode(const uint8_t* p, size_t size, Id* out) const {
        if (size == 0) return out;
        if (size < 64) {
            uint64_t open = ~uint64_t{0};
            return encode(p, size, out, &open);
        }
        std::vector<uint64_t> open(size / 64 + 1, ~uint64_t{0});
        return encode(p, size, out, open.data());
    }

private:
    static constexpr TokenId kNone = 0xFFFFFFFF;
    static constexpr size_t kStepsPerByte = 16, kMoreSteps = 256;  // text of any script takes about two a byte

    // Half of a token at a border.
    struct Part {
        uint32_t made = 0;  // one more than the rank of the merge that makes the whole token, 0 if parts of it do not matter
        TokenId id = 0;
    };
    struct Token {
        Part last, first;        // its parts at its end and at its beginning
        TokenId prefix = kNone;  // the longest token that it begins with, kNone for a byte
        uint32_t size = 0;
    };

    static std::vector<Merge> without_early(const Merges& merges, size_t num_ids);
    bool can_do_early(const Merges& merges) const;
    std::vector<TokenId> find_tokens(const std::array<TokenId, 256>& byte_ids);
    void leave_out_parts(const std::vector<TokenId>& tokens);

    // Bit i of `open`: no token was found in vain to end at p + i.
    template <class Id>
    Id* encode(const uint8_t* p, size_t size, Id* out, uint64_t* open) const {
        const Id* const first = out;
        const uint8_t *at = p, *const end = p + size;
        auto [token, token_end, read] = trie_->longest(at, end);
        auto steps = static_cast<int64_t>(kStepsPerByte * size + kMoreSteps) - (read - at);
        while (--steps >= 0) {
            const auto place = static_cast<size_t>(token_end - p);
            if ((open[place / 64] >> place % 64 & 1) && (out == first || stay_apart(out[-1], token, Merges::kMissing, steps))) {
                *out++ = static_cast<Id>(token);
                if (token_end == end) return out;
                at = token_end;
                const auto next = trie_->longest(at, end);
                token = next.token;
                token_end = next.end;
                steps -= next.read - at;
                continue;
            }
            while ((token = tokens_[token].prefix) == kNone) {
                if (out == first) throw std::logic_error("a piece has no tokens");  // not where it is exact
                const auto closed = static_cast<size_t>(at - p);
                open[closed / 64] &= ~(uint64_t{1} << closed % 64);
                token = *--out;
                at -= tokens_[token].size;
            }
            token_end = at + tokens_[token].size;
        }
        return nullptr;
    }

    // Whether no merge of a rank below `limit` crosses the border of two neighbours: their merges are undone, the last one
    // first, and at each stage the two parts at the border are what may have merged before the next stage. Counts stages down.
    bool stay_apart(TokenId left, TokenId right, uint32_t limit, int64_t& steps) const {
        for (;; --steps) {
            if (merges_.find(left, right) < limit) return false;
            const Part last = tokens_[left].last, first = tokens_[right].first;
            if ((last.made | first.made) == 0) return true;
            const bool is_left = last.made > first.made;  // of two equal tokens the left one is merged first
            limit = is_left ? last.made - 1 : first.made;
            left = is_left ? last.id : left;
            right = is_left ? right : first.id;
        }
    }

    const Merges merges_;
    std::vector<Token> tokens_;
    std::optional<TokenTrie> trie_;
    bool is_exact_ = false;
};

}  // namespace alilama
