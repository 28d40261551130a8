#include "encoder.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <utility>

namespace alilama {

// What is rarely called stays out of the loops that it is called from.
#if defined(_MSC_VER) && !defined(__clang__)
#define ALILAMA_NOINLINE __declspec(noinline)
#else
#define ALILAMA_NOINLINE __attribute__((noinline))
#endif

constexpr size_t kMaxMatched = size_t{1} << 23;  // bytes of all tokens, for each of which a trie may need a node
constexpr size_t kMaxScanned = 64;               // bytes of a piece; longer ones are merged by rank

Encoder::Encoder(const Vocabulary& vocabulary)
    : byte_ids_(vocabulary.byte_ids), merges_(vocabulary.merges), joins_(vocabulary.merges.size()) {
    if (vocabulary.tokens.size() > size_t{1} << 31) throw std::length_error("there are more than 2^31 tokens");
    offsets_.push_back(0);
    for (const std::string& token : vocabulary.tokens) {
        bytes_ += token;
        if (bytes_.size() > std::numeric_limits<uint32_t>::max()) throw std::length_error("the tokens take 4 GiB or more");
        offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
    }
    bytes_.append(kCopied, '\0');
    const auto bytes_of = [&](TokenId id) -> const std::string& {
        if (id >= vocabulary.tokens.size() || vocabulary.tokens[id].empty())
            throw std::invalid_argument("id " + std::to_string(id) + " is used, but is not a token");
        return vocabulary.tokens[id];
    };
    for (size_t byte = 0; byte < 256; ++byte)
        if (bytes_of(byte_ids_[byte]) != std::string(1, static_cast<char>(byte)))
            throw std::invalid_argument("the token of byte " + std::to_string(byte) + " is not that byte");
    for (uint32_t rank = 0; rank < merges_.size(); ++rank) {
        const auto [left, right, result] = merges_[rank];
        if (bytes_of(result) != bytes_of(left) + bytes_of(right))
            throw std::invalid_argument("merge " + std::to_string(rank) + " joins ids " + std::to_string(left) + " and " +
                                        std::to_string(right) + ", but their bytes are not those of " + std::to_string(result));
        joins_.add(bytes_of(result));
    }
    if (bytes_.size() <= kMaxMatched) longest_match_.emplace(merges_, byte_ids_, num_ids(), bytes_of);
    if (longest_match_ && !longest_match_->is_exact()) longest_match_.reset();
    for (TokenId id = 0; id < num_ids(); ++id) {
        const std::string_view token = vocabulary.tokens[id];
        if (token.size() > 1 && token.size() <= WideKey<1>::kMaxSize && merges_to(token, id)) known_.push_back(id);
    }
    for (const TokenId id : vocabulary.whole_pieces)
        if (!merges_to(bytes_of(id), id)) whole_pieces_.emplace(bytes_of(id), id);
}

// Whether the merges make one token, `id`, of a piece.
bool Encoder::merges_to(std::string_view piece, TokenId id) const {
    std::vector<TokenId> ids(piece.size());
    return merge(piece, ids.data()) == ids.data() + 1 && ids[0] == id;
}

// Merges neighbouring ids, lowest rank first, leftmost on ties, until no pair has a merge (Sennrich et al. 2016,
// arXiv:1508.07909). O(size * merges done).
template <class Id>
Id* Encoder::merge_by_scanning(const uint8_t* p, size_t size, Id* out) const {
    TokenId ids[kMaxScanned];
    uint32_t ranks[kMaxScanned];  // ranks[i]: of the merge of ids[i] and ids[i + 1], kMissing if there is none
    for (size_t i = 0; i < size; ++i) ids[i] = byte_ids_[p[i]];
    for (size_t i = 0; i + 1 < size; ++i) ranks[i] = merges_.find(ids[i], ids[i + 1]);
    while (size > 1) {
        size_t best = 0;
        uint32_t best_rank = ranks[0];
        for (size_t i = 1; i + 1 < size; ++i) {
            best = ranks[i] < best_rank ? i : best;
            best_rank = std::min(best_rank, ranks[i]);
        }
        if (best_rank == Merges::kMissing) break;
        ids[best] = merges_[best_rank].result;
        --size;
        for (size_t i = best + 1; i < size; ++i) ids[i] = ids[i + 1];
        for (size_t i = best + 1; i + 1 < size; ++i) ranks[i] = ranks[i + 1];
        if (best > 0) ranks[best - 1] = merges_.find(ids[best - 1], ids[best]);
        if (best + 1 < size) ranks[best] = merges_.find(ids[best], ids[best + 1]);
    }
    for (size_t i = 0; i < size; ++i) *out++ = static_cast<Id>(ids[i]);
    return out;
}

namespace {

// Places of a piece that wait for merges, found by the lowest rank first and from left to right.
class WaitingPlaces {
public:
    explicit WaitingPlaces(size_t num_ranks)
        : first_(new uint32_t[num_ranks]), ranks_((num_ranks + 63) / 64), words_((ranks_.size() + 63) / 64) {}

    void add(uint32_t rank, size_t place) {
        uint64_t& word = ranks_[rank / 64];
        const uint64_t bit = uint64_t{1} << rank % 64;
        const uint32_t next = word & bit ? first_[rank] : kNone;
        word |= bit;
        words_[rank / 4096] |= uint64_t{1} << rank / 64 % 64;
        uint32_t entry = free_;
        if (entry == kNone) {
            entry = static_cast<uint32_t>(entries_.size());
            entries_.emplace_back();
        } else {
            free_ = entries_[entry].next;
        }
        entries_[entry] = {static_cast<uint32_t>(place), next};
        first_[rank] = entry;
    }

    // Moves the places of the lowest rank to `places` and returns it, kMissing if none is left.
    uint32_t take_lowest(std::vector<uint32_t>& places) {
        places.clear();
        size_t i = 0;
        while (i < words_.size() && words_[i] == 0) ++i;
        if (i == words_.size()) return Merges::kMissing;
        const size_t word = 64 * i + static_cast<size_t>(lowest_bit(words_[i]));
        const auto rank = static_cast<uint32_t>(64 * word) + static_cast<uint32_t>(lowest_bit(ranks_[word]));
        ranks_[word] &= ranks_[word] - 1;
        if (ranks_[word] == 0) words_[i] &= words_[i] - 1;
        for (uint32_t entry = first_[rank]; entry != kNone;) {
            places.push_back(entries_[entry].place);
            const uint32_t next = entries_[entry].next;
            entries_[entry].next = free_;
            free_ = entry;
            entry = next;
        }
        std::reverse(places.begin(), places.end());  // in which order they mostly came
        if (!std::is_sorted(places.begin(), places.end())) std::sort(places.begin(), places.end());
        return rank;
    }

private:
    static constexpr uint32_t kNone = 0xFFFFFFFF;
    struct Entry {
        uint32_t place, next;  // of the same rank, or free
    };

    std::unique_ptr<uint32_t[]> first_;  // entry of each rank that has its bit
    std::vector<uint64_t> ranks_;        // a bit for each rank with places
    std::vector<uint64_t> words_;        // a bit for each word of them that is not 0
    std::vector<Entry> entries_;
    uint32_t free_ = kNone;
};

}  // namespace

// The same in O(n log n): places wait by the rank of their merge. A token stands in its first and its last cell, kInside in
// those between, so both neighbours are found without links.
template <class Id>
Id* Encoder::merge_by_rank(const uint8_t* p, size_t size, Id* out) const {
    constexpr TokenId kInside = 0xFFFFFFFF;
    if (size > std::numeric_limits<uint32_t>::max()) throw std::length_error("a piece of the text takes 4 GiB or more");
    std::vector<TokenId> cells(size);
    WaitingPlaces waiting(merges_.size());
    uint32_t lowest = Merges::kMissing;  // rank added since places were taken
    const auto consider = [&](size_t left, size_t right) {
        const uint32_t rank = merges_.find(cells[left], cells[right]);
        if (rank == Merges::kMissing) return;
        waiting.add(rank, left);
        lowest = std::min(lowest, rank);
    };
    for (size_t i = 0; i < size; ++i) {
        cells[i] = byte_ids_[p[i]];
        if (i > 0) consider(i - 1, i);
    }
    std::vector<uint32_t> places;
    for (uint32_t rank; (rank = waiting.take_lowest(places)) != Merges::kMissing;) {
        const auto [left_id, right_id, result] = merges_[rank];
        lowest = Merges::kMissing;
        for (size_t i = 0; i < places.size(); ++i) {
            if (lowest < rank) {  // it goes first
                while (i < places.size()) waiting.add(rank, places[i++]);
                break;
            }
            const size_t left = places[i], right = left + size_of(left_id);
            if (cells[left] != left_id || right >= size || cells[right] != right_id) continue;  // one has merged since
            const size_t end = right + size_of(right_id);
            cells[right - 1] = cells[right] = kInside;
            cells[left] = cells[end - 1] = result;
            if (left > 0) consider(left - size_of(cells[left - 1]), left);
            if (end < size) consider(left, end);
        }
    }
    for (size_t i = 0; i < size; i += size_of(cells[i])) *out++ = static_cast<Id>(cells[i]);
    return out;
}

template <class Id>
Id* Encoder::merge(std::string_view piece, Id* out) const {
    const auto* p = reinterpret_cast<const uint8_t*>(piece.data());
    if (longest_match_)
        if (Id* const end = longest_match_->encode(p, piece.size(), out)) return end;
    return piece.size() <= kMaxScanned ? merge_by_scanning(p, piece.size(), out) : merge_by_rank(p, piece.size(), out);
}

template <class Id>
Id* Encoder::encode_piece(std::string_view piece, Id* out) const {
    if (!whole_pieces_.empty()) {
        if (const auto found = whole_pieces_.find(std::string(piece)); found != whole_pieces_.end()) {
            *out++ = static_cast<Id>(found->second);
            return out;
        }
    }
    return merge(piece, out);
}

// Encodes a piece of 16 * (kBlocks - 1) to 16 * kBlocks - 1 bytes.
template <int kBlocks, class Id>
inline Id* Encoder::encode_short(const uint8_t* p, size_t size, PieceCache<Id>& cache, Id* out) const {
    const auto key = WideKey<kBlocks>::of(p, size);
    const auto& newest = cache.places_of(key)[0];
    return newest.key == key ? newest.copy_to(out) : encode_other<kBlocks>(p, size, cache, out);
}

// The same for one that is not the newest in its places.
template <int kBlocks, class Id>
ALILAMA_NOINLINE Id* Encoder::encode_other(const uint8_t* p, size_t size, PieceCache<Id>& cache, Id* out) const {
    const auto key = WideKey<kBlocks>::of(p, size);
    auto* const places = cache.places_of(key);
    if (places[1].key == key) {
        std::swap(places[0], places[1]);
        return places[0].copy_to(out);
    }
    Id* const end = encode_piece({reinterpret_cast<const char*>(p), size}, out);
    cache.set(key, out, end);
    return end;
}

// Encodes a piece of any size.
template <class Id>
ALILAMA_NOINLINE Id* Encoder::encode_any(const uint8_t* p, size_t size, PieceCache<Id>& cache, Id* out) const {
    switch (size / 16) {
        case 0: return encode_short<1>(p, size, cache, out);
        case 1: return encode_short<2>(p, size, cache, out);
        case 2: return encode_short<3>(p, size, cache, out);
        case 3: return encode_short<4>(p, size, cache, out);
        default: return encode_piece({reinterpret_cast<const char*>(p), size}, out);
    }
}

template <class Id>
Id* Encoder::encode(const Pattern& pattern, std::string_view text, PieceCache<Id>& cache, Id* out) const {
    const auto* const begin = reinterpret_cast<const uint8_t*>(text.data());
    const auto on_pieces = [&](const uint8_t* p, uint64_t ends) {
        Id* to = out;  // in a register
        split_block(p, ends, [&](const uint8_t* piece, size_t size) {
            to = size <= WideKey<1>::kMaxSize ? encode_short<1>(piece, size, cache, to) : encode_any(piece, size, cache, to);
        });
        out = to;
    };
    const auto on_long = [&](const uint8_t* p, size_t size) { out = encode_any(p, size, cache, out); };
    // A part of a piece must not be taken for a whole one.
    for_each_block(pattern, whole_pieces_.empty() ? &joins_ : nullptr, begin, begin + text.size(), on_pieces, on_long);
    return out;
}

template <class Id>
PieceCache<Id> Encoder::make_cache() const {
    PieceCache<Id> cache;
    for (auto known = known_.rbegin(); known != known_.rend(); ++known) {  // the last learned, which are the rarest, first
        if (whole_pieces_.count(bytes_.substr(offsets_[*known], size_of(*known))) != 0) continue;  // as another id
        uint8_t bytes[16] = {};
        std::memcpy(bytes, &bytes_[offsets_[*known]], size_of(*known));
        const auto id = static_cast<Id>(*known);
        cache.set(WideKey<1>::of(bytes, size_of(*known)), &id, &id + 1);
    }
    return cache;
}

template <class Id>
std::string Encoder::decode(const Id* ids, size_t size) const {
    std::string text(6 * size + kCopied, '\0');  // a guess that rarely has to grow
    size_t used = 0;
    for (size_t i = 0; i < size; ++i) {
        const auto id = static_cast<uint64_t>(ids[i]);
        const size_t token_size = id < num_ids() ? size_of(static_cast<TokenId>(id)) : 0;
        if (token_size == 0)
            throw std::out_of_range("id " + std::to_string(ids[i]) + " at position " + std::to_string(i) +
                                    " is not a token: ids go from 0 to " + std::to_string(num_ids() - 1));
        const size_t room = std::max(token_size, kCopied);
        if (text.size() - used < room) text.resize(text.size() + text.size() / 2 + room);
        const char* const token = &bytes_[offsets_[id]];
        if (token_size <= kCopied) {
            std::memcpy(&text[used], token, kCopied);  // of a fixed size, so it is one instruction
        } else {
            std::memcpy(&text[used], token, token_size);
        }
        used += token_size;
    }
    text.resize(used);
    return text;
}

template uint16_t* Encoder::encode(const Pattern&, std::string_view, PieceCache<uint16_t>&, uint16_t*) const;
template uint32_t* Encoder::encode(const Pattern&, std::string_view, PieceCache<uint32_t>&, uint32_t*) const;
template PieceCache<uint16_t> Encoder::make_cache() const;
template PieceCache<uint32_t> Encoder::make_cache() const;
template uint16_t* Encoder::encode_piece(std::string_view, uint16_t*) const;
template uint32_t* Encoder::encode_piece(std::string_view, uint32_t*) const;
template std::string Encoder::decode(const uint16_t*, size_t) const;
template std::string Encoder::decode(const uint32_t*, size_t) const;
template std::string Encoder::decode(const int64_t*, size_t) const;

}  // namespace alilama
