// Cuts text into the pieces that no merge crosses. Text may be any bytes (see unicode.hpp). Each pattern is written out
// twice, both take the same pieces as its regular expression: character by character for all of Unicode, and 64 bytes at
// a time for ASCII. Neither looks back behind the beginning of a piece, so the two can take turns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bits.hpp"
#include "unicode.hpp"

namespace alilama {

enum class Pattern { kGpt4, kGpt2 };

// End of the piece that begins at `p` (p < end), character by character. By the "gpt4" pattern:
// '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+
// By the "gpt2" pattern: '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
const uint8_t* piece_end(Pattern pattern, const uint8_t* p, const uint8_t* end);

// Where pieces end in the text from `p`, the beginning of one: bit i stands for p + i, 1 <= i <= 63. Only ends that
// nothing behind the 64 bytes can change are told, so there may be none. Needs 64 readable bytes.
uint64_t piece_ends(Pattern pattern, const uint8_t* p, const uint8_t* end);

// Calls on_piece(begin, size) for every piece of the text, in order; together they are the text. 16 bytes are readable
// from `begin`, which may lie in a copy of the text.
template <class OnPiece>
void for_each_piece(Pattern pattern, const uint8_t* p, const uint8_t* end, OnPiece&& on_piece) {
    constexpr std::ptrdiff_t kReach = 64 + 16;  // what a block and the pieces in it read
    const auto cut = [&](const uint8_t* text_end, const uint8_t* stop) {
        while (p < stop) {
            uint64_t ends = piece_ends(pattern, p, text_end);
            if (ends == 0) {
                const uint8_t* next = piece_end(pattern, p, text_end);
                on_piece(p, static_cast<size_t>(next - p));
                p = next;
                continue;
            }
            int begin = 0;
            do {
                const int next = lowest_bit(ends);
                on_piece(p + begin, static_cast<size_t>(next - begin));
                begin = next;
                ends &= ends - 1;
            } while (ends);
            p += begin;
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

}  // namespace alilama
