#include "pretokenizer.hpp"

#include <stdexcept>
#include <string>

#include "char_block.hpp"
#include "documents.hpp"

namespace alilama {
namespace {

// ---- character by character ----

// The character at `p`; marks are taken for what a pattern takes them for: letters or others.
template <CharClass kMarks>
Char read_char_by(const uint8_t* p, const uint8_t* end) {
    const Char c = read_char(p, end);
    return c.cls == CharClass::kMark ? Char{kMarks, c.size} : c;
}

// End of the run of characters of class `cls` that begins at `p`.
template <CharClass kMarks>
const uint8_t* run_end(const uint8_t* p, const uint8_t* end, CharClass cls) {
    while (p < end) {
        const Char c = read_char_by<kMarks>(p, end);
        if (c.cls != cls) break;
        p += c.size;
    }
    return p;
}

bool is_newline(uint8_t byte) { return byte == '\n' || byte == '\r'; }

// \s+(?!\S)|\s+ at a white space character: the run, less its last character if something follows that it could join.
const uint8_t* space_piece_end(const uint8_t* p, const uint8_t* end) {
    const uint8_t* last = p;
    const uint8_t* q = p;
    while (q < end) {
        const Char c = read_char(q, end);
        if (c.cls != CharClass::kSpace) break;
        last = q;
        q += c.size;
    }
    return q == end || last == p ? q : last;
}

// Bytes of the contraction at the apostrophe `p`, 0 if there is none. Ignoring case, the long s (U+017F) is an s too.
int contraction_size(const uint8_t* p, const uint8_t* end, bool ignore_case) {
    const auto at = [&](int i) -> uint8_t {
        if (end - p <= i) return 0;
        return ignore_case && p[i] >= 'A' && p[i] <= 'Z' ? static_cast<uint8_t>(p[i] | 0x20) : p[i];
    };
    switch (at(1)) {
        case 's':
        case 'd':
        case 'm':
        case 't': return 2;
        case 'l': return at(2) == 'l' ? 3 : 0;
        case 'v':
        case 'r': return at(2) == 'e' ? 3 : 0;
        case 0xC5: return ignore_case && at(2) == 0xBF ? 3 : 0;
        default: return 0;
    }
}

// "gpt4" and "qwen35", whose numbers have up to kDigits digits.
template <CharClass kMarks, int kDigits>
const uint8_t* gpt4_piece_end(const uint8_t* p, const uint8_t* end) {
    const Char first = read_char_by<kMarks>(p, end);
    const uint8_t* second = p + first.size;
    if (first.cls == CharClass::kLetter) return run_end<kMarks>(second, end, CharClass::kLetter);
    if (first.cls == CharClass::kNumber) {
        for (int i = 1; i < kDigits && second < end; ++i) {
            const Char c = read_char(second, end);
            if (c.cls != CharClass::kNumber) break;
            second += c.size;
        }
        return second;
    }
    if (*p == '\'') {
        if (const int size = contraction_size(p, end, true)) return p + size;
    }
    const Char next = second < end ? read_char_by<kMarks>(second, end) : Char{CharClass::kSpace, 0};
    if (next.cls == CharClass::kLetter && !is_newline(*p)) return run_end<kMarks>(second + next.size, end, CharClass::kLetter);
    if (first.cls == CharClass::kOther || (*p == ' ' && next.cls == CharClass::kOther)) {
        const uint8_t* q = run_end<kMarks>(second, end, CharClass::kOther);
        while (q < end && is_newline(*q)) ++q;
        return q;
    }
    const uint8_t* after_newline = nullptr;
    for (const uint8_t* q = p; q < end;) {
        const Char c = read_char(q, end);
        if (c.cls != CharClass::kSpace) break;
        q += c.size;
        if (is_newline(q[-1])) after_newline = q;
    }
    return after_newline ? after_newline : space_piece_end(p, end);
}

const uint8_t* gpt2_piece_end(const uint8_t* p, const uint8_t* end) {
    if (*p == '\'') {
        if (const int size = contraction_size(p, end, false)) return p + size;
    }
    constexpr CharClass kMarks = CharClass::kOther;
    const Char first = read_char_by<kMarks>(p, end);
    const uint8_t* second = p + first.size;
    if (first.cls != CharClass::kSpace) return run_end<kMarks>(second, end, first.cls);
    if (*p == ' ' && second < end) {
        const Char next = read_char_by<kMarks>(second, end);
        if (next.cls != CharClass::kSpace) return run_end<kMarks>(second + next.size, end, next.cls);
    }
    return space_piece_end(p, end);
}

// ---- 64 bytes at a time ----

// A block as words of bits, of ASCII here. `x << 1` is "after an x", `x >> 1` is "before an x". Adding to a run of bits its
// lowest one clears the run and sets the bit after it. By the "gpt4" pattern, say, with the lowest bit on the left, "_" for a
// blank and "n" for a newline:
//
//     text            a _ _ b 1 2 3 4 _ c ! n n _ d
//     letter          1 . . 1 . . . . . 1 . . . . 1
//     number          . . . . 1 1 1 1 . . . . . . .
//     other           . . . . . . . . . . 1 . . . .
//     space           . 1 1 . . . . . 1 . . 1 1 1 .
//     taken           . . . . . . . . . . . 1 1 . .   newlines after "!", which belong to its piece
//     space           . 1 1 . . . . . 1 . . . . 1 .   without them
//     its run_starts  . 1 . . . . . . 1 . . . . 1 .
//     last_of_space   . . 1 . . . . . 1 . . . . 1 .   it goes with what follows
//     number_starts   . . . . 1 . . 1 . . . . . . .   every third digit
//     other_starts    . . . . . . . . . . 1 . . . .
//     prefix          . . 1 . . . . . 1 . . . . 1 .   what a letter follows and takes with it
//     letter_starts   1 . . . . . . . . . . . . . .   of runs without a prefix
//     all starts      1 1 1 . 1 . . 1 1 . 1 . . 1 .   a|_|_b|123|4|_c|!nn|_d
struct Classes {
    uint64_t letter, number, other, space, newline, blank, apostrophe, inner;
    uint64_t last_of_space;  // the last of each run of white space that something else follows
};

// The first of each run of bits.
uint64_t run_starts(uint64_t bits) { return bits & ~(bits << 1); }

// The first bytes of the characters after those whose first bytes are given.
uint64_t next_chars(uint64_t first, uint64_t inner) { return (inner + (first << 1)) & ~inner; }

// Contractions among the pieces that begin with an apostrophe and a letter.
struct Contractions {
    uint64_t apostrophe = 0;  // of those found
    uint64_t after = 0;       // letters after them, which they cut off
};

Contractions find_contractions(uint64_t apostrophes, const uint8_t* p, const uint8_t* end, bool ignore_case, uint64_t letter) {
    Contractions found;
    for (; apostrophes; apostrophes &= apostrophes - 1) {
        const int i = lowest_bit(apostrophes);
        const int size = contraction_size(p + i, end, ignore_case);
        if (size == 0) continue;
        found.apostrophe |= uint64_t{1} << i;
        if (i + size < CharBlock::kSize) found.after |= letter & uint64_t{1} << (i + size);
    }
    return found;
}

// Every third digit of a run begins a piece.
uint64_t number_starts(uint64_t number) {
    uint64_t found = run_starts(number), starts = found;
    const uint64_t fourth = number & number << 1 & number << 2 & number << 3;
    while (found) {
        found = found << 3 & fourth;
        starts |= found;
    }
    return starts;
}

// Where white space begins pieces by \s*[\r\n]|\s+(?!\S)|\s+, apart from the last of a run: a run begins one, and so
// does what comes after its last newline.
uint64_t white_space_starts(uint64_t space, uint64_t newline) {
    const uint64_t inner = space & ~newline;
    uint64_t after_newline = inner & newline << 1, starts = run_starts(space);
    if (((inner + run_starts(inner)) & ~inner & newline) == 0) return starts | after_newline;
    for (; after_newline; after_newline &= after_newline - 1) {  // some have a newline after them again
        const uint64_t first = after_newline & (~after_newline + 1);
        if (((inner + first) & ~inner & newline) == 0) starts |= first;
    }
    return starts;
}

template <int kDigits>
uint64_t gpt4_starts(const Classes& c, const uint8_t* p, const uint8_t* end) {
    const uint64_t after_other = c.newline & c.other << 1;
    const uint64_t taken = c.newline & ~(c.newline + after_other);  // newlines that belong to what they follow
    const uint64_t space = c.space & ~taken;
    const uint64_t other_starts = run_starts(c.other) & ~(c.blank << 1);
    const uint64_t prefixed = next_chars(other_starts | (space & ~c.newline), c.inner) & c.letter;
    const uint64_t letter_starts = run_starts(c.letter) & ~prefixed;
    return white_space_starts(space, c.newline & ~taken) | (c.last_of_space & ~c.newline) | other_starts |
           (kDigits == 1 ? c.number : number_starts(c.number)) | letter_starts |
           find_contractions(c.apostrophe & prefixed >> 1, p, end, true, c.letter).after;
}

uint64_t gpt2_starts(const Classes& c, const uint8_t* p, const uint8_t* end) {
    const uint64_t words = (run_starts(c.letter) | run_starts(c.number) | run_starts(c.other)) & ~(c.blank << 1);
    const Contractions contractions = find_contractions(c.apostrophe & words & c.letter >> 1, p, end, false, c.letter);
    return run_starts(c.space) | c.last_of_space | (words & ~(contractions.apostrophe << 1)) | contractions.after;
}

// Pattern::piece_ends from where pieces start by the characters of a block.
template <CharClass kMarks, uint64_t (*starts_of)(const Classes&, const uint8_t* p, const uint8_t* end)>
uint64_t piece_ends(const uint8_t* p, const uint8_t* end, const Joins* joins) {
    const CharBlock block = read_char_block(p, joins);
    uint64_t known = ~block.unread;  // the bytes that the answer rests on
    const bool at_end = end - p < CharBlock::kSize && (block.unread & low_bits(static_cast<int>(end - p))) == 0;
    if (at_end) known = low_bits(static_cast<int>(end - p));
    const uint64_t last = known ^ known >> 1, space = block.space & known;
    const uint64_t letter = kMarks == CharClass::kLetter ? block.letter | block.mark : block.letter;
    const uint64_t other = kMarks == CharClass::kOther ? block.other() | block.mark : block.other();
    const Classes c = {letter & known,
                       block.number & known,
                       other & known,
                       space,
                       block.newline & known,
                       block.blank & known,
                       block.apostrophe & known,
                       block.inner,
                       space & ~(space >> 1) & ~last};
    uint64_t starts = starts_of(c, p, end);
    if (at_end) {
        starts |= last << 1;
    } else if (space & last) {  // white space that may go on: nothing is certain after its beginning
        const uint64_t no_space = known & ~space;
        starts &= no_space ? known & bits_through(highest_bit(no_space) + 1) : 0;
    }
    return ((starts & (known | last << 1)) | block.cuts) & ~uint64_t{1};
}

}  // namespace

const std::vector<Pattern> kPatterns = {
    {"gpt4", R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     gpt4_piece_end<CharClass::kOther, 3>, piece_ends<CharClass::kOther, gpt4_starts<3>>, find_word_cut},
    {"gpt2", R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", gpt2_piece_end,
     piece_ends<CharClass::kOther, gpt2_starts>, find_word_cut},
    {"qwen35",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     gpt4_piece_end<CharClass::kLetter, 1>, piece_ends<CharClass::kLetter, gpt4_starts<1>>, find_word_cut},
};

const Pattern& find_pattern(std::string_view name) {
    std::string names;
    for (const Pattern& pattern : kPatterns) {
        if (pattern.name == name) return pattern;
        names += (names.empty() ? "" : ", ") + std::string(pattern.name);
    }
    throw std::invalid_argument("the pattern is not native: expected one of " + names);  // it need not be text
}

}  // namespace alilama
