#include "joins.hpp"

#include "unicode.hpp"

namespace alilama {
namespace {

// Size of the character that the first byte announces, 0 if it can begin none.
size_t announced_size(uint8_t byte) { return byte < 0x80 ? 1 : byte < 0xC0 ? 0 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4; }

// The three bytes at `p` as a number, the first one lowest.
uint32_t read_three(const uint8_t* p) { return p[0] | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16; }

}  // namespace

void Joins::add(std::string_view token) {
    const auto* p = reinterpret_cast<const uint8_t*>(token.data());
    for (size_t i = 1; i < token.size(); ++i) {
        if (continues_char(p[i])) continue;
        size_t begin = i - 1, end = i + 1;
        while (begin > 0 && continues_char(p[begin])) --begin;
        while (end < token.size() && continues_char(p[end])) ++end;
        const size_t left_size = i - begin, right_size = announced_size(p[i]);
        if (announced_size(p[begin]) != left_size || right_size == 0 || i + right_size > end) {
            set(bytes_, place_of_bytes(p[i - 1], p[i]));
        } else if (left_size == 3 && right_size == 3) {
            set(pairs_, place_of(read_three(p + begin), read_three(p + i)));
        }
    }
}

}  // namespace alilama
