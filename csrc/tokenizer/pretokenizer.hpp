// Cuts text into the pieces that no merge crosses. Text may be any bytes (see unicode.hpp). Each pattern is written out
// twice, both take the same pieces as its regular expression: character by character for all of Unicode, and 64 bytes at
// a time. Neither looks back before the beginning of a piece, so the two can take turns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "bits.hpp"
#include "merges.hpp"
#include "unicode.hpp"

namespace alilama {

// A pattern that is written out here. Bytes of a text are `p` up to `end`.
struct Pattern {
    std::string_view name;
    std::string_view expression;  // in the syntax of Python's regex package

    // End of the piece that begins at `p` (p < end), character by character.
    const uint8_t* (*piece_end)(const uint8_t* p, const uint8_t* end);

    // Where pieces end in the text from `p`, the beginning of one: bit i stands for p + i, 1 <= i <= 63. Only ends that
    // nothing after the 64 bytes can change are told, so there may be none. Needs 68 readable bytes. With `joins`, pieces
    // are also cut between letters that no token joins; `p` may then be such a cut, so a pattern's run of letters has to end
    // in the same place when it is begun in its middle.
    uint64_t (*piece_ends)(const uint8_t* p, const uint8_t* end, const Joins* joins);

    // Where a text that goes on may be cut so that no piece crosses the cut: see documents.hpp, whose find_document_cut
    // is right for any pattern.
    size_t (*find_cut)(std::string_view text);
};

// All of them. A new one is an entry here and the functions it names; bindings, Python, tests and fuzzer go by this table.
extern const std::vector<Pattern> kPatterns;

// The pattern of that name. Throws std::invalid_argument if there is none.
const Pattern& find_pattern(std::string_view name);

// Calls on_pieces(begin, ends) for the pieces of a text, in order; together they are the text. Bit i of `ends` is an end at
// begin + i, and a piece begins at `begin` and at every end but the last. A piece of 64 bytes or more comes alone, by
// on_long(begin, size). 96 bytes are readable from `begin`, which may lie in a copy of the text.
template <class OnPieces, class OnLong>
void for_each_block(const Pattern& pattern, const Joins* joins, const uint8_t* p, const uint8_t* end, OnPieces&& on_pieces,
                    OnLong&& on_long) {
    constexpr std::ptrdiff_t kReach = 64 + 32;  // what a block and the pieces in it read
    const auto cut = [&](const uint8_t* text_end, const uint8_t* stop) {
        while (p < stop) {
            const uint64_t ends = pattern.piece_ends(p, text_end, joins);
            if (ends == 0) {
                const uint8_t* next = pattern.piece_end(p, text_end);
                on_long(p, static_cast<size_t>(next - p));
                p = next;
                continue;
            }
            on_pieces(p, ends);
            p += highest_bit(ends);
        }
    };
    if (end - p > kReach) cut(end, end - kReach);
    if (p == end) return;
    uint8_t tail[2 * kReach] = {};
    const auto left = static_cast<size_t>(end - p);
    std::memcpy(tail, p, left);
    p = tail;
    cut(tail + left, tail + left);
}

// Calls on_piece(begin, size) for the pieces of a block that `ends` tells.
template <class OnPiece>
inline void split_block(const uint8_t* begin, uint64_t ends, OnPiece&& on_piece) {
    int piece = 0;
    do {
        const int next = lowest_bit(ends);
        on_piece(begin + piece, static_cast<size_t>(next - piece));
        piece = next;
        ends &= ends - 1;
    } while (ends);
}

// Calls on_piece(begin, size) for every piece of a text, in order; see for_each_block.
template <class OnPiece>
void for_each_piece(const Pattern& pattern, const uint8_t* p, const uint8_t* end, OnPiece&& on_piece) {
    const auto on_pieces = [&](const uint8_t* begin, uint64_t ends) { split_block(begin, ends, on_piece); };
    for_each_block(pattern, nullptr, p, end, on_pieces, on_piece);
}

}  // namespace alilama
