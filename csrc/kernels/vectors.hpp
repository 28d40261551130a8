// Vectors of floats for the kernels, and their exponential function.
#pragma once

#include <cstdint>
#include <cstring>

// Functions marked FOR_EVERY_CPU are compiled for several generations of x86, and the best one is taken when the program
// starts. What they call is marked INLINE, so that it is compiled with them, and what they call themselves takes and returns no
// vectors, which clang would pass in other registers.
#if defined(__x86_64__) && defined(__linux__) && defined(__clang__)
#define FOR_EVERY_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#elif defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && __GNUC__ >= 12
#define FOR_EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), flatten))
#else
#define FOR_EVERY_CPU
#endif
#define INLINE inline __attribute__((always_inline))

namespace alilama {

constexpr int kLanes = 16;  // floats in a vector; where the machine's are shorter, the compiler takes several
using Vector = float __attribute__((vector_size(kLanes * sizeof(float))));
using IntVector = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

INLINE Vector load(const float* from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

INLINE void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

// e^x for x <= 0 to 2 units in the last place; 0 below -87.
INLINE Vector exp(Vector x) {
    const IntVector tiny = x < -87.0f;
    x = tiny ? Vector{} - 87.0f : x;
    const Vector shift = Vector{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    const Vector n = (x * 1.44269504f + shift) - shift;
    const Vector r = (x - n * 0.693145752f) - n * 1.42860677e-6f;  // x - n ln 2, |r| <= ln 2 / 2
    Vector p = Vector{} + 1.0f / 5040;
    for (const float factorial : {720.0f, 120.0f, 24.0f, 6.0f, 2.0f, 1.0f, 1.0f}) p = p * r + 1.0f / factorial;
    const IntVector exponent = (__builtin_convertvector(n, IntVector) + 127) << 23;
    Vector power;
    std::memcpy(&power, &exponent, sizeof power);
    return tiny ? Vector{} : p * power;
}

INLINE float sum(Vector v) {
    using Half = float __attribute__((vector_size(sizeof(Vector) / 2)));
    using Quarter = float __attribute__((vector_size(sizeof(Vector) / 4)));
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    const Half half = halves[0] + halves[1];
    Quarter quarters[2];
    std::memcpy(quarters, &half, sizeof half);
    const Quarter quarter = quarters[0] + quarters[1];
    return (quarter[0] + quarter[1]) + (quarter[2] + quarter[3]);
}

// 0, 1, 2, ... kLanes - 1.
INLINE IntVector lane_indices() {
    IntVector lanes;
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = lane;
    return lanes;
}

// A score with the bias of a key that is `distance` positions before the query: alilama/model/attention.py has the same.
INLINE Vector with_bias(Vector score, float slope, Vector distance) { return score - slope * distance; }

INLINE Vector larger(Vector a, Vector b) { return a > b ? a : b; }

INLINE float maximum(Vector v) {
    float largest = v[0];
    for (int lane = 1; lane < kLanes; ++lane) largest = v[lane] > largest ? v[lane] : largest;
    return largest;
}

// Puts e^(score - largest) in place of n scores, a multiple of kLanes, and returns their sum.
INLINE float exponentiate(float* scores, int64_t n, float largest) {
    Vector total = {};
    for (int64_t j = 0; j < n; j += kLanes) {
        const Vector p = exp(load(scores + j) - largest);
        total += p;
        store(scores + j, p);
    }
    return sum(total);
}

}  // namespace alilama
