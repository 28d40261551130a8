#include "encoder.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <queue>
#include <stdexcept>
#include <utility>

namespace alilama {

Encoder::Encoder(const Vocabulary& vocabulary) : byte_ids_(vocabulary.byte_ids), merges_(vocabulary.merges) {
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
    for (size_t rank = 0; rank < merges_.size(); ++rank) {
        const auto [left, right, result] = merges_[rank];
        if (bytes_of(result) != bytes_of(left) + bytes_of(right))
            throw std::invalid_argument("merge " + std::to_string(rank) + " joins ids " + std::to_string(left) + " and " +
                                        std::to_string(right) + ", but their bytes are not those of " + std::to_string(result));
        if (rank_by_pair_.find_or_insert(left, right, static_cast<uint32_t>(rank)) != rank)
            throw std::invalid_argument("merge " + std::to_string(rank) + " joins the same pair as an earlier one");
    }
    for (const TokenId id : vocabulary.whole_pieces) whole_pieces_.emplace(bytes_of(id), id);
}

constexpr size_t kMaxScanned = 64;  // bytes of a piece; longer ones are merged by a heap

// Merges neighbouring ids, lowest rank first, leftmost on ties, until no pair has a merge (Sennrich et al. 2016,
// arXiv:1508.07909). O(size * merges done).
template <class Id>
Id* Encoder::merge_by_scanning(const uint8_t* p, size_t size, Id* out) const {
    TokenId ids[kMaxScanned];
    uint32_t ranks[kMaxScanned];  // ranks[i]: of the merge of ids[i] and ids[i + 1], kMissing if there is none
    for (size_t i = 0; i < size; ++i) ids[i] = byte_ids_[p[i]];
    for (size_t i = 0; i + 1 < size; ++i) ranks[i] = rank_by_pair_.find(ids[i], ids[i + 1]);
    while (size > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < size; ++i)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == PairMap::kMissing) break;
        ids[best] = merges_[ranks[best]].result;
        --size;
        for (size_t i = best + 1; i < size; ++i) ids[i] = ids[i + 1];
        for (size_t i = best + 1; i + 1 < size; ++i) ranks[i] = ranks[i + 1];
        if (best > 0) ranks[best - 1] = rank_by_pair_.find(ids[best - 1], ids[best]);
        if (best + 1 < size) ranks[best] = rank_by_pair_.find(ids[best], ids[best + 1]);
    }
    for (size_t i = 0; i < size; ++i) *out++ = static_cast<Id>(ids[i]);
    return out;
}

// The same in O(n log n): candidates wait in a heap. A token stands in its first and its last cell, kInside in those
// between, so both neighbours are found without links.
template <class Id>
Id* Encoder::merge_by_heap(const uint8_t* p, size_t size, Id* out) const {
    constexpr TokenId kInside = 0xFFFFFFFF;
    using Candidate = std::pair<uint32_t, uint32_t>;  // rank and place of the left token
    if (size > std::numeric_limits<uint32_t>::max()) throw std::length_error("a piece of the text takes 4 GiB or more");
    std::vector<TokenId> cells(size);
    for (size_t i = 0; i < size; ++i) cells[i] = byte_ids_[p[i]];
    std::vector<Candidate> first;
    for (size_t i = 0; i + 1 < size; ++i) {
        const uint32_t rank = rank_by_pair_.find(cells[i], cells[i + 1]);
        if (rank != PairMap::kMissing) first.emplace_back(rank, static_cast<uint32_t>(i));
    }
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates({}, std::move(first));
    const auto consider = [&](size_t left, size_t right) {
        const uint32_t rank = rank_by_pair_.find(cells[left], cells[right]);
        if (rank != PairMap::kMissing) candidates.emplace(rank, static_cast<uint32_t>(left));
    };
    while (!candidates.empty()) {
        const auto [rank, left] = candidates.top();
        candidates.pop();
        const auto [left_id, right_id, result] = merges_[rank];
        const size_t right = left + size_of(left_id);
        if (cells[left] != left_id || right >= size || cells[right] != right_id) continue;  // one has merged since
        const size_t end = right + size_of(right_id);
        cells[right - 1] = cells[right] = kInside;
        cells[left] = cells[end - 1] = result;
        if (end < size) consider(left, end);
        if (left > 0) consider(left - size_of(cells[left - 1]), left);
    }
    for (size_t i = 0; i < size; i += size_of(cells[i])) *out++ = static_cast<Id>(cells[i]);
    return out;
}

template <class Id>
Id* Encoder::encode_piece(std::string_view piece, Id* out) const {
    if (!whole_pieces_.empty()) {
        if (const auto found = whole_pieces_.find(std::string(piece)); found != whole_pieces_.end()) {
            *out++ = static_cast<Id>(found->second);
            return out;
        }
    }
    const auto* p = reinterpret_cast<const uint8_t*>(piece.data());
    return piece.size() <= kMaxScanned ? merge_by_scanning(p, piece.size(), out) : merge_by_heap(p, piece.size(), out);
}

template <class Id>
Id* Encoder::encode(const Pattern& pattern, std::string_view text, PieceCache<Id>& cache, Id* out) const {
    using Short = typename PieceCache<Id>::Short;
    using Long = typename PieceCache<Id>::Long;
    static_assert(sizeof(Short::ids) <= kSlack * sizeof(Id));
    const auto remember = [](auto& entry, const PieceKey& key, const Id* ids, const Id* ids_end) {
        const auto num_tokens = static_cast<size_t>(ids_end - ids);
        entry.key = PieceKey();
        if (num_tokens > entry.kMaxTokens) return;
        entry.key = key;
        std::memcpy(entry.ids, ids, num_tokens * sizeof(Id));
        entry.ids[entry.kMaxTokens] = static_cast<Id>(num_tokens);
    };
    const auto* begin = reinterpret_cast<const uint8_t*>(text.data());
    for_each_piece(pattern, begin, begin + text.size(), [&](const uint8_t* p, size_t size) {
        Id* const ids = out;
        const std::string_view piece(reinterpret_cast<const char*>(p), size);
        if (size <= PieceKey::kMaxShort) {
            const PieceKey key = short_key(p, size);
            Short* entry = cache.shorts(key);
            if (!(entry->key == key)) {
                std::swap(entry[0], entry[1]);  // the newest stands first
                if (!(entry->key == key)) {
                    out = encode_piece(piece, out);
                    return remember(*entry, key, ids, out);
                }
            }
            std::memcpy(out, entry->ids, sizeof(Short::ids));
            out += entry->ids[Short::kMaxTokens];
            return;
        }
        if (size > Long::kMaxSize) {
            out = encode_piece(piece, out);
            return;
        }
        const PieceKey key = long_key(p, size);
        Long& entry = cache.long_of(key);
        if (entry.key == key && std::memcmp(entry.bytes, p, size) == 0) {
            const size_t num_tokens = entry.ids[Long::kMaxTokens];
            std::memcpy(out, entry.ids, num_tokens * sizeof(Id));
            out += num_tokens;
            return;
        }
        out = encode_piece(piece, out);
        std::memcpy(entry.bytes, p, size);
        remember(entry, key, ids, out);
    });
    return out;
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
template uint16_t* Encoder::encode_piece(std::string_view, uint16_t*) const;
template uint32_t* Encoder::encode_piece(std::string_view, uint32_t*) const;
template std::string Encoder::decode(const uint16_t*, size_t) const;
template std::string Encoder::decode(const uint32_t*, size_t) const;
template std::string Encoder::decode(const int64_t*, size_t) const;

}  // namespace alilama
