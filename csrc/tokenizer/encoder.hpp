// Turns text into token ids and back with a learned list of merges.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "pair_map.hpp"
#include "piece_key.hpp"
#include "pretokenizer.hpp"

namespace alilama {

// Ids of pieces met before. A piece has one set of places, from which a newer one drives the oldest: memory is bounded.
// Not for sharing between threads.
template <class Id>
class PieceCache {
public:
    // A short piece with all its ids, and after the last place their number: half a cache line, so that a hit is one read
    // and one copy of fixed size.
    struct Short {
        static constexpr size_t kMaxTokens = 16 / sizeof(Id) - 1;
        PieceKey key;
        Id ids[kMaxTokens + 1];
    };
    // A piece that PieceKey only hashes, so its bytes are compared too.
    struct Long {
        static constexpr size_t kMaxSize = 48, kMaxTokens = 64 / sizeof(Id) - 1;
        PieceKey key;
        uint8_t bytes[kMaxSize];
        Id ids[kMaxTokens + 1];
    };

    PieceCache() : shorts_(size_t{kWays} << kShortBits), longs_(size_t{1} << kLongBits) {}
    Short* shorts(const PieceKey& key) { return &shorts_[(key.hash() >> (64 - kShortBits)) * kWays]; }
    Long& long_of(const PieceKey& key) { return longs_[key.hash() >> (64 - kLongBits)]; }

private:
    static constexpr size_t kWays = 2;
    static constexpr int kShortBits = 14;  // 1 MiB; 2 MiB was as fast on stories and 2% faster on source code
    static constexpr int kLongBits = 11;   // 256 KiB

    std::vector<Short> shorts_;
    std::vector<Long> longs_;
};

// The pair of neighbours (left, right) becomes `result`.
struct Merge {
    TokenId left, right, result;
};

// What a tokenizer is made of. Tokens are numbered in any way.
struct Vocabulary {
    std::vector<std::string> tokens;    // bytes of each id, special tokens too; empty for an id without a token
    std::array<TokenId, 256> byte_ids;  // what each byte is before any merge
    std::vector<Merge> merges;          // the earlier one goes first
    std::vector<TokenId> whole_pieces;  // a piece with the bytes of one of these becomes it without any merge
};

// Immutable: threads may share it.
class Encoder {
public:
    // Throws std::invalid_argument if a token is not what its merge joins, an id has no token, or a pair comes twice, and
    // std::length_error if the tokens take 4 GiB or more.
    explicit Encoder(const Vocabulary& vocabulary);

    // Ids that `encode` may write after the last one.
    static constexpr size_t kSlack = 16;

    // Encodes `text`, cut by `pattern`; writes at most text.size() ids to `out`, and garbage to at most kSlack more, and
    // returns the end of the ids. O(size) where pieces repeat, O(size log longest piece) at worst. Id is uint16_t or
    // uint32_t and must hold every id.
    template <class Id>
    Id* encode(const Pattern& pattern, std::string_view text, PieceCache<Id>& cache, Id* out) const;

    // The same for one piece that was cut elsewhere.
    template <class Id>
    Id* encode_piece(std::string_view piece, Id* out) const;

    // Ids are below this.
    size_t num_ids() const { return offsets_.size() - 1; }

    // The bytes of the tokens, one after the other. Throws std::out_of_range at an id that is not a token.
    template <class Id>
    std::string decode(const Id* ids, size_t size) const;

private:
    size_t size_of(TokenId id) const { return offsets_[id + 1] - offsets_[id]; }
    template <class Id>
    Id* merge_by_scanning(const uint8_t* p, size_t size, Id* out) const;
    template <class Id>
    Id* merge_by_heap(const uint8_t* p, size_t size, Id* out) const;

    static constexpr size_t kCopied = 16;  // bytes of a token that are copied at once

    std::array<TokenId, 256> byte_ids_;
    std::vector<Merge> merges_;
    PairMap rank_by_pair_;  // a merge's rank is its place in merges_
    std::unordered_map<std::string, TokenId> whole_pieces_;
    std::string bytes_;              // of all tokens, one after the other, and kCopied more
    std::vector<uint32_t> offsets_;  // where each id's begin, and the end
};

}  // namespace alilama
