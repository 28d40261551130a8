// What the patterns ask of a character: is it a letter (\p{L}), a number (\p{N}), white space (\s), a mark (\p{M}), which
// belongs to the letter before it, or none of these.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace alilama {

enum class CharClass : uint8_t { kOther, kLetter, kNumber, kSpace, kMark };

// A character as the patterns see it. A byte that is not part of valid UTF-8 is a character by itself, of class
// kOther, as Python's errors="surrogateescape" has it.
struct Char {
    CharClass cls;
    uint8_t size;  // in bytes
};

// Class of every code point in two steps: `block` by its upper bits, `cls` by block and lower bits.
struct ClassTable {
    static constexpr size_t kBlockBits = 7;
    std::array<uint8_t, (0x110000 >> kBlockBits)> block;
    std::vector<CharClass> cls;
    std::array<CharClass, 128> ascii;

    ClassTable();
    CharClass operator[](uint32_t code_point) const {
        return cls[(size_t{block[code_point >> kBlockBits]} << kBlockBits) | (code_point & ((1u << kBlockBits) - 1))];
    }
};

extern const ClassTable kClassTable;

// Reads the non-ASCII character at `p`; needs p < end and *p >= 0x80.
Char read_multibyte(const uint8_t* p, const uint8_t* end);

// The code point of the valid character beyond ASCII at `p`.
inline uint32_t read_code_point(const uint8_t* p) {
    if (*p < 0xE0) return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    if (*p < 0xF0) return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}

// Whether a byte can only stand after the first one of a character.
inline bool continues_char(uint8_t byte) { return (byte & 0xC0) == 0x80; }

// Reads the character at `p`; needs p < end.
inline Char read_char(const uint8_t* p, const uint8_t* end) {
    return *p < 0x80 ? Char{kClassTable.ascii[*p], 1} : read_multibyte(p, end);
}

}  // namespace alilama
