// What compilers name differently: words of bits, and memory that will be read.
#pragma once

#include <cstdint>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

namespace alilama {

// Position of the lowest bit of `bits`, which is not 0.
inline int lowest_bit(uint64_t bits) {
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long position;
    _BitScanForward64(&position, bits);
    return static_cast<int>(position);
#else
    return __builtin_ctzll(bits);
#endif
}

// Position of the highest bit of `bits`, which is not 0.
inline int highest_bit(uint64_t bits) {
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long position;
    _BitScanReverse64(&position, bits);
    return static_cast<int>(position);
#else
    return 63 - __builtin_clzll(bits);
#endif
}

// The `size` lowest bits, size <= 63.
inline uint64_t low_bits(int size) { return (uint64_t{1} << size) - 1; }

// The bits from the lowest one through `position`, position <= 63.
inline uint64_t bits_through(int position) { return (uint64_t{2} << position) - 1; }

// Begins to bring what is at `address`, which may be anywhere, into the cache.
inline void prefetch(const void* address) {
#if defined(_MSC_VER) && !defined(__clang__)
#if defined(_M_X64)
    _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T0);
#else
    static_cast<void>(address);
#endif
#else
    __builtin_prefetch(address);
#endif
}

}  // namespace alilama
