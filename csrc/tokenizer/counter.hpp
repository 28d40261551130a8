// Counts how often each piece occurs in a text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "piece_key.hpp"
#include "pretokenizer.hpp"

namespace alilama {

// Counters that saw parts of a text in any order merge into the same counts.
class PieceCounter {
public:
    // Longer pieces are counted in parts of this size.
    static constexpr size_t kMaxPiece = size_t{1} << 20;

    PieceCounter() : slots_(size_t{1} << kFirstBits) {}

    // Counts the pieces of `text`, cut by `pattern`. O(size).
    void add_text(const Pattern& pattern, std::string_view text);
    // Counts one piece that was cut elsewhere; an empty piece is ignored.
    void add_piece(std::string_view piece, int64_t count = 1);
    // Takes over the counts of `other`, which is empty afterwards.
    void merge(PieceCounter& other);

    size_t num_pieces() const { return num_pieces_; }
    size_t piece_bytes() const { return piece_bytes_; }
    // About what the pieces take in memory while merges are learned from them: two slots of the table each, and for every
    // byte its cell, its piece's number and its places in the lists of pairs, with their spare room.
    size_t num_bytes() const { return kBytesPerPiece * num_pieces_ + kBytesPerByte * piece_bytes_; }
    // Drops the rarest pieces until `num_bytes()` is at most `limit`; among pieces of one count, those with the greater
    // hash. Returns how many. O(n log n) in the number of pieces.
    size_t drop_rarest(size_t limit);

    // Calls on_piece(bytes, count) for every piece, in no particular order.
    template <class OnPiece>
    void for_each(OnPiece&& on_piece) const {
        for (const Slot& slot : slots_)
            if (!slot.key.empty()) on_piece(bytes_of(slot), slot.count);
    }

private:
    static constexpr int kFirstBits = 14;
    static constexpr size_t kBytesPerPiece = 96, kBytesPerByte = 24;

    struct Slot {
        PieceKey key;
        int64_t count = 0;
        uint64_t offset = 0;  // of a long piece in long_bytes_
    };

    std::string_view bytes_of(const Slot& slot) const {
        const char* bytes = slot.key.is_short() ? reinterpret_cast<const char*>(&slot.key) : &long_bytes_[slot.offset];
        return {bytes, slot.key.size()};
    }
    void add_short(const PieceKey& key, int64_t count);
    void add_long(const uint8_t* p, size_t size, int64_t count);
    void insert(Slot& slot, const PieceKey& key, int64_t count);
    void grow();

    std::vector<Slot> slots_;  // open addressing, at most half full
    int bits_ = kFirstBits;
    size_t num_pieces_ = 0;
    size_t piece_bytes_ = 0;
    std::vector<char> long_bytes_;  // of the long pieces, one after the other
};

}  // namespace alilama
