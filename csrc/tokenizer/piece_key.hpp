// Pieces as a few machine words, so that tables hold and compare them inline.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "PieceKey masks bytes by their place in a word and needs a little-endian machine"
#endif

namespace alilama {

// A short piece is its own key: its 1 to 15 bytes, zeros after them, and its size in the last byte. Equal keys are equal
// pieces. A long piece has a hash and its size, marked in the last byte; equal keys are then probably equal pieces.
struct PieceKey {
    static constexpr size_t kMaxShort = 15;
    uint64_t low = 0, high = 0;  // no piece has {0, 0}

    bool operator==(const PieceKey& other) const { return low == other.low && high == other.high; }
    bool empty() const { return high == 0; }
    bool is_short() const { return high >> 56 <= kMaxShort; }
    size_t size() const { return is_short() ? high >> 56 : high << 8 >> 8; }

    // Well mixed in the upper bits.
    uint64_t hash() const { return low * 0x9E3779B97F4A7C15u ^ high * 0xD6E8FEB86659FD93u; }
};

// Key of a piece of 1 to 15 bytes; 16 bytes are read.
inline PieceKey short_key(const uint8_t* p, size_t size) {
    static constexpr uint64_t kMasks[16][2] = {{0, 0},
                                               {~0ull >> 56, 0},
                                               {~0ull >> 48, 0},
                                               {~0ull >> 40, 0},
                                               {~0ull >> 32, 0},
                                               {~0ull >> 24, 0},
                                               {~0ull >> 16, 0},
                                               {~0ull >> 8, 0},
                                               {~0ull, 0},
                                               {~0ull, ~0ull >> 56},
                                               {~0ull, ~0ull >> 48},
                                               {~0ull, ~0ull >> 40},
                                               {~0ull, ~0ull >> 32},
                                               {~0ull, ~0ull >> 24},
                                               {~0ull, ~0ull >> 16},
                                               {~0ull, ~0ull >> 8}};
    uint64_t words[2];
    std::memcpy(words, p, 16);
    return {words[0] & kMasks[size][0], (words[1] & kMasks[size][1]) | uint64_t{size} << 56};
}

// Key of a piece of 16 or more bytes, which only hashes it.
inline PieceKey long_key(const uint8_t* p, size_t size) {
    uint64_t hash = size;
    const auto mix = [&](const uint8_t* at) {
        uint64_t word;
        std::memcpy(&word, at, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    };
    for (size_t i = 0; i + 8 < size; i += 8) mix(p + i);
    mix(p + size - 8);
    return {hash, uint64_t{size} | uint64_t{0xFF} << 56};
}

// A piece of up to 16 * kBlocks - 1 bytes as it is: its bytes, zeros after them, and its size in the last byte.
template <int kBlocks>
struct WideKey {
    static constexpr size_t kMaxSize = 16 * kBlocks - 1;
    PieceKey blocks[kBlocks];

    // Of the piece of 16 * (kBlocks - 1) or more bytes at `p`; 16 * kBlocks bytes are read.
    static WideKey of(const uint8_t* p, size_t size) {
        WideKey key;
        std::memcpy(key.blocks, p, 16 * (kBlocks - 1));
        key.blocks[kBlocks - 1] = short_key(p + 16 * (kBlocks - 1), size - 16 * (kBlocks - 1));
        key.blocks[kBlocks - 1].high |= uint64_t{size} << 56;
        return key;
    }

    size_t size() const { return blocks[kBlocks - 1].high >> 56; }

    bool operator==(const WideKey& other) const {
        uint64_t difference = 0;
        for (int i = 0; i < kBlocks; ++i)
            difference |= (blocks[i].low ^ other.blocks[i].low) | (blocks[i].high ^ other.blocks[i].high);
        return difference == 0;
    }
    uint64_t hash() const {
        uint64_t hash = blocks[0].hash();
        for (int i = 1; i < kBlocks; ++i) hash = (hash ^ hash >> 29) * 0x9E3779B97F4A7C15u ^ blocks[i].hash();
        return hash;
    }
};

}  // namespace alilama
