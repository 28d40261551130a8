// Turns text into token ids and back with a learned list of merges.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "longest_match.hpp"
#include "merges.hpp"
#include "piece_key.hpp"
#include "pretokenizer.hpp"

namespace alilama {

// Ids of pieces met before, each kind of size in a table of its own. A piece has a set of two places, from which a newer one
// drives the oldest. Where that happens often the table grows, to a bound. Not for sharing between threads.
template <class Id>
class PieceCache {
public:
    // A piece of up to 16 * kBlocks - 1 bytes with all its ids and, after the last place, their number: half a cache line for
    // the shortest, so that a hit is one read and one copy of fixed size.
    template <int kBlocks>
    struct Entry {
        static constexpr size_t kMaxTokens = 16 * kBlocks / sizeof(Id) - 1;
        WideKey<kBlocks> key;
        Id ids[kMaxTokens + 1];

        // Copies the ids, and garbage to the size of `ids`; returns their end.
        Id* copy_to(Id* out) const {
            std::memcpy(out, ids, sizeof ids);
            return out + ids[kMaxTokens];
        }
    };

    // The two places for a key, the newer first. They hold until something is set.
    template <int kBlocks>
    Entry<kBlocks>* places_of(const WideKey<kBlocks>& key) {
        return std::get<Table<kBlocks>>(tables_).places_of(key);
    }

    // Remembers the ids of a key that is in none of its places, unless there are too many.
    template <int kBlocks>
    void set(const WideKey<kBlocks>& key, const Id* begin, const Id* end) {
        const auto num_tokens = static_cast<size_t>(end - begin);
        if (num_tokens > Entry<kBlocks>::kMaxTokens) return;
        Entry<kBlocks>& entry = std::get<Table<kBlocks>>(tables_).insert(key);
        entry.key = key;
        std::memcpy(entry.ids, begin, num_tokens * sizeof(Id));
        entry.ids[entry.kMaxTokens] = static_cast<Id>(num_tokens);
    }

private:
    static constexpr int kCacheBits = 14;  // of the first table; they have 1.8 MiB at first and 26 at most

    template <int kBlocks>
    class Table {
    public:
        Entry<kBlocks>* places_of(const WideKey<kBlocks>& key) { return &entries_[2 * (key.hash() >> shift_)]; }

        // Makes the first place of a key free.
        Entry<kBlocks>& insert(const WideKey<kBlocks>& key) {
            Entry<kBlocks>* places = places_of(key);
            if (places[1].key.size() != 0 && ++num_driven_out_ > entries_.size() / 2 && shift_ > 64 - kMostBits) {
                grow();
                places = places_of(key);
            }
            places[1] = places[0];
            return places[0];
        }

    private:
        static constexpr int kFirstBits = kCacheBits - 2 * (kBlocks - 1), kMostBits = kCacheBits + 4 - kBlocks;

        void grow() {
            std::vector<Entry<kBlocks>> old(2 * entries_.size());
            old.swap(entries_);
            --shift_;
            num_driven_out_ = 0;
            for (size_t i = old.size(); i-- > 0;)  // the older of two places first
                if (old[i].key.size() != 0) insert(old[i].key) = old[i];
        }

        std::vector<Entry<kBlocks>> entries_ = std::vector<Entry<kBlocks>>(size_t{2} << kFirstBits);
        int shift_ = 64 - kFirstBits;
        size_t num_driven_out_ = 0;  // since it grew
    };

    std::tuple<Table<1>, Table<2>, Table<3>, Table<4>> tables_;
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
    // std::length_error if the tokens take 4 GiB or more, or are more than 2^31, as merges must not be either.
    explicit Encoder(const Vocabulary& vocabulary);
    Encoder(const Encoder&) = delete;
    Encoder& operator=(const Encoder&) = delete;

    // Ids that `encode` may write after the last one.
    static constexpr size_t kSlack = 32;

    // A cache for `encode` that knows the pieces that are one token.
    template <class Id>
    PieceCache<Id> make_cache() const;

    // Encodes `text`, cut by `pattern`, with a cache of this encoder; writes at most text.size() ids to `out`, and garbage to
    // at most kSlack more, and returns the end of the ids. O(size) where pieces repeat, O(size log longest piece) at worst. Id
    // is uint16_t or uint32_t and must hold every id.
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
    bool merges_to(std::string_view piece, TokenId id) const;
    template <int kBlocks, class Id>
    Id* encode_short(const uint8_t* p, size_t size, PieceCache<Id>& cache, Id* out) const;
    template <int kBlocks, class Id>
    Id* encode_other(const uint8_t* p, size_t size, PieceCache<Id>& cache, Id* out) const;
    template <class Id>
    Id* encode_any(const uint8_t* p, size_t size, PieceCache<Id>& cache, Id* out) const;
    template <class Id>
    Id* merge(std::string_view piece, Id* out) const;
    template <class Id>
    Id* merge_by_scanning(const uint8_t* p, size_t size, Id* out) const;
    template <class Id>
    Id* merge_by_rank(const uint8_t* p, size_t size, Id* out) const;

    static constexpr size_t kCopied = 16;  // bytes of a token that are copied at once

    std::array<TokenId, 256> byte_ids_;
    Merges merges_;
    Joins joins_;
    std::optional<LongestMatch> longest_match_;              // if it is exact for these merges
    std::vector<TokenId> known_;                             // tokens of 2 to 15 bytes that their bytes merge to
    std::unordered_map<std::string, TokenId> whole_pieces_;  // to which their bytes do not merge
    std::string bytes_;                                      // of all tokens, one after the other, and kCopied more
    std::vector<uint32_t> offsets_;                          // where each id's begin, and the end
};

}  // namespace alilama
