#include "unicode.hpp"

#include <algorithm>
#include <cassert>

namespace alilama {
namespace {

struct Range {
    uint32_t first, last;
    CharClass cls;
};

constexpr Range kRanges[] = {
#include "unicode_ranges.inc"
};

}  // namespace

ClassTable::ClassTable() {
    std::vector<CharClass> flat(0x110000, CharClass::kOther);
    for (const Range& range : kRanges) std::fill(&flat[range.first], &flat[range.last] + 1, range.cls);
    std::copy_n(flat.begin(), ascii.size(), ascii.begin());

    constexpr size_t kBlockSize = size_t{1} << kBlockBits;
    for (size_t i = 0; i < block.size(); ++i) {
        const auto wanted = flat.begin() + static_cast<std::ptrdiff_t>(i * kBlockSize);
        size_t known = 0;
        while (known * kBlockSize < cls.size() &&
               !std::equal(wanted, wanted + kBlockSize, cls.begin() + static_cast<std::ptrdiff_t>(known * kBlockSize)))
            ++known;
        if (known * kBlockSize == cls.size()) cls.insert(cls.end(), wanted, wanted + kBlockSize);
        assert(known < 256);  // Unicode 17 has 223 different blocks
        block[i] = static_cast<uint8_t>(known);
    }
}

const ClassTable kClassTable;

Char read_multibyte(const uint8_t* p, const uint8_t* end) {
    constexpr Char kInvalid = {CharClass::kOther, 1};
    const auto left = end - p;
    const auto continues = [&](int i) { return continues_char(p[i]); };
    const uint32_t lead = p[0];
    if (lead < 0xC2) return kInvalid;  // a continuation byte, or an overlong form
    if (lead < 0xE0) {
        if (left < 2 || !continues(1)) return kInvalid;
        return {kClassTable[(lead & 0x1F) << 6 | (p[1] & 0x3F)], 2};
    }
    if (lead < 0xF0) {
        if (left < 3 || !continues(1) || !continues(2)) return kInvalid;
        const uint32_t code_point = (lead & 0x0F) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3F);
        if (code_point < 0x800 || (code_point >= 0xD800 && code_point < 0xE000)) return kInvalid;
        return {kClassTable[code_point], 3};
    }
    if (lead < 0xF5) {
        if (left < 4 || !continues(1) || !continues(2) || !continues(3)) return kInvalid;
        const uint32_t code_point = (lead & 0x07) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3F);
        if (code_point < 0x10000 || code_point > 0x10FFFF) return kInvalid;
        return {kClassTable[code_point], 4};
    }
    return kInvalid;
}

}  // namespace alilama
