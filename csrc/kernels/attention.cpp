#include "attention.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "vectors.hpp"

namespace alilama {
namespace {

constexpr int kRows = 4;  // queries that are computed together

INLINE float to_float(float x) { return x; }

INLINE float to_float(BFloat16 x) {
    const uint32_t bits = uint32_t{x.bits} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE void from_float(float value, float& to) { to = value; }

INLINE void from_float(float value, BFloat16& to) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    to.bits = value != value ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// out[r][j] = sum_d x[r][d] * columns[d][j] for kRows rows of x, (kRows, x_stride), and j < n, a multiple of kLanes.
INLINE void multiply_columns(const float* x, int64_t x_stride, const float* columns, int64_t column_stride, int64_t D,
                             int64_t n, float* out, int64_t out_stride) {
    for (int64_t j = 0; j < n; j += kLanes) {
        Vector total[kRows] = {};
        for (int64_t d = 0; d < D; ++d) {
            const Vector column = load(columns + d * column_stride + j);
            for (int r = 0; r < kRows; ++r) total[r] += x[r * x_stride + d] * column;
        }
        for (int r = 0; r < kRows; ++r) store(out + r * out_stride + j, total[r]);
    }
}

// out[r][d] = sum_j weights[r][j] * rows[j][d] for kRows rows of weights, j < n, and d < width, a multiple of kLanes.
INLINE void multiply_rows(const float* weights, int64_t weight_stride, const float* rows, int64_t n, int64_t width,
                          float* out) {
    for (int64_t d = 0; d < width; d += kLanes) {
        Vector total[kRows] = {};
        for (int64_t j = 0; j < n; ++j) {
            const Vector row = load(rows + j * width + d);
            for (int r = 0; r < kRows; ++r) total[r] += weights[r * weight_stride + j] * row;
        }
        for (int r = 0; r < kRows; ++r) store(out + r * width + d, total[r]);
    }
}

// sums[j][d] += sum_r weights[r][j] * x[r][d] for kRows rows of weights and x, j < n, and d < width, a multiple of kLanes.
INLINE void add_outer(const float* weights, int64_t weight_stride, const float* x, int64_t n, int64_t width, float* sums) {
    for (int64_t d = 0; d < width; d += kLanes) {
        Vector row[kRows];
        for (int r = 0; r < kRows; ++r) row[r] = load(x + r * width + d);
        for (int64_t j = 0; j < n; ++j) {
            Vector total = load(sums + j * width + d);
            for (int r = 0; r < kRows; ++r) total += weights[r * weight_stride + j] * row[r];
            store(sums + j * width + d, total);
        }
    }
}

// One head in float32, padded with zeros: to `rows` positions and `width` numbers a position, multiples of kLanes.
struct Head {
    int64_t T, D, rows, width;

    explicit Head(const AttentionShape& shape)
        : T(shape.T), D(shape.D), rows(round_up(shape.T, kLanes)), width(round_up(shape.D, kLanes)) {}

    std::vector<float> zeros() const { return std::vector<float>(rows * width); }

    // From the positions of a tensor, `stride` numbers apart, to (rows, width).
    template <class Number>
    void read(const Number* from, int64_t stride, std::vector<float>& to, float scale = 1) const {
        for (int64_t t = 0; t < T; ++t)
            for (int64_t d = 0; d < D; ++d) to[t * width + d] = to_float(from[t * stride + d]) * scale;
    }

    template <class Number>
    void write(const std::vector<float>& from, Number* to, int64_t stride, float scale = 1) const {
        for (int64_t t = 0; t < T; ++t)
            for (int64_t d = 0; d < D; ++d) from_float(from[t * width + d] * scale, to[t * stride + d]);
    }

    // (rows, width) to (width, rows).
    void transpose(const std::vector<float>& from, std::vector<float>& to) const {
        for (int64_t t = 0; t < rows; ++t)
            for (int64_t d = 0; d < width; ++d) to[d * rows + t] = from[t * width + d];
    }
};

// Adds -slope * (i - j) to the first n of the scores of query i, and makes those of the future too small to count.
INLINE void add_bias(float* scores, int64_t i, int64_t n, float slope) {
    const Vector lanes = __builtin_convertvector(lane_indices(), Vector);
    for (int64_t j = 0; j < n; j += kLanes) {
        const Vector distance = static_cast<float>(i - j) - lanes;
        const Vector biased = with_bias(load(scores + j), slope, distance);
        store(scores + j, distance < 0.0f ? Vector{} - INFINITY : biased);
    }
}

template <class Number>
INLINE void forward_head(const AttentionShape& shape, const Number* qkv, float slope, Number* y, float* logsumexp) {
    const Head head(shape);
    const int64_t C = shape.H * shape.D;
    auto q = head.zeros(), k = head.zeros(), v = head.zeros(), keys = head.zeros(), out = head.zeros();
    std::vector<float> scores(kRows * head.rows);
    head.read(qkv, 3 * C, q, 1 / std::sqrt(static_cast<float>(head.D)));
    head.read(qkv + C, 3 * C, k);
    head.read(qkv + 2 * C, 3 * C, v);
    head.transpose(k, keys);
    for (int64_t i = 0; i < head.T; i += kRows) {
        const int64_t n = round_up(std::min(i + kRows, head.T), kLanes);
        multiply_columns(&q[i * head.width], head.width, keys.data(), head.rows, head.D, n, scores.data(), head.rows);
        float totals[kRows];
        for (int r = 0; r < kRows; ++r) {
            float* row = &scores[r * head.rows];
            add_bias(row, i + r, n, slope);
            Vector largest = load(row);
            for (int64_t j = kLanes; j < n; j += kLanes) largest = larger(load(row + j), largest);
            const float top = maximum(largest);
            totals[r] = exponentiate(row, n, top);
            if (i + r < head.T) logsumexp[i + r] = top + std::log(totals[r]);
        }
        multiply_rows(scores.data(), head.rows, v.data(), n, head.width, &out[i * head.width]);
        for (int r = 0; r < kRows; ++r)
            for (int64_t d = 0; d < head.width; ++d) out[(i + r) * head.width + d] /= totals[r];
    }
    head.write(out, y, C);
}

template <class Number>
INLINE void backward_head(const AttentionShape& shape, const Number* qkv, float slope, const float* logsumexp,
                          const Number* grad_y, Number* grad_qkv) {
    const Head head(shape);
    const int64_t C = shape.H * shape.D;
    const float scale = 1 / std::sqrt(static_cast<float>(head.D));
    auto q = head.zeros(), k = head.zeros(), v = head.zeros(), keys = head.zeros(), values = head.zeros();
    auto grad_out = head.zeros(), grad_q = head.zeros(), grad_k = head.zeros(), grad_v = head.zeros();
    std::vector<float> p(kRows * head.rows), grad_p(kRows * head.rows);
    head.read(qkv, 3 * C, q, scale);
    head.read(qkv + C, 3 * C, k);
    head.read(qkv + 2 * C, 3 * C, v);
    head.read(grad_y, C, grad_out);
    head.transpose(k, keys);
    head.transpose(v, values);
    for (int64_t i = 0; i < head.T; i += kRows) {
        const int64_t n = round_up(std::min(i + kRows, head.T), kLanes);
        multiply_columns(&q[i * head.width], head.width, keys.data(), head.rows, head.D, n, p.data(), head.rows);
        multiply_columns(&grad_out[i * head.width], head.width, values.data(), head.rows, head.D, n, grad_p.data(), head.rows);
        for (int r = 0; r < kRows; ++r) {
            float *p_row = &p[r * head.rows], *grad_row = &grad_p[r * head.rows];
            add_bias(p_row, i + r, n, slope);
            const float normaliser = i + r < head.T ? logsumexp[i + r] : INFINITY;  // p = 0 after the end
            Vector products = {};
            for (int64_t j = 0; j < n; j += kLanes) {
                const Vector weights = exp(load(p_row + j) - normaliser);
                store(p_row + j, weights);
                products += weights * load(grad_row + j);
            }
            const float mean = sum(products);          // of the gradients of p, weighted with p
            for (int64_t j = 0; j < n; j += kLanes) {  // from here on the gradients of the scores
                store(grad_row + j, load(p_row + j) * (load(grad_row + j) - mean));
            }
        }
        multiply_rows(grad_p.data(), head.rows, k.data(), n, head.width, &grad_q[i * head.width]);
        add_outer(grad_p.data(), head.rows, &q[i * head.width], n, head.width, grad_k.data());
        add_outer(p.data(), head.rows, &grad_out[i * head.width], n, head.width, grad_v.data());
    }
    head.write(grad_q, grad_qkv, 3 * C, scale);
    head.write(grad_k, grad_qkv + C, 3 * C);  // q holds the scale already
    head.write(grad_v, grad_qkv + 2 * C, 3 * C);
}

FOR_EVERY_CPU void forward_one(const AttentionShape& shape, const float* qkv, float slope, float* y, float* logsumexp) {
    forward_head(shape, qkv, slope, y, logsumexp);
}

FOR_EVERY_CPU void forward_one(const AttentionShape& shape, const BFloat16* qkv, float slope, BFloat16* y, float* logsumexp) {
    forward_head(shape, qkv, slope, y, logsumexp);
}

FOR_EVERY_CPU void backward_one(const AttentionShape& shape, const float* qkv, float slope, const float* logsumexp,
                                const float* grad_y, float* grad_qkv) {
    backward_head(shape, qkv, slope, logsumexp, grad_y, grad_qkv);
}

FOR_EVERY_CPU void backward_one(const AttentionShape& shape, const BFloat16* qkv, float slope, const float* logsumexp,
                                const BFloat16* grad_y, BFloat16* grad_qkv) {
    backward_head(shape, qkv, slope, logsumexp, grad_y, grad_qkv);
}

// Where head `head` of B * H begins in qkv, in y and in logsumexp.
struct Place {
    int64_t h, in_qkv, in_y, in_logsumexp;

    Place(const AttentionShape& shape, int64_t head) : h(head % shape.H), in_logsumexp(head * shape.T) {
        const int64_t C = shape.H * shape.D, first_row = head / shape.H * shape.T;
        in_qkv = first_row * 3 * C + h * shape.D;
        in_y = first_row * C + h * shape.D;
    }
};

// Calls function(place) for every head of a batch, by several threads. Throws std::bad_alloc where one of them did.
template <class Function>
void for_each_head(const AttentionShape& shape, int num_threads, Function function) {
    std::atomic<bool> out_of_memory{false};  // an exception must not leave OpenMP's threads
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int64_t head = 0; head < shape.B * shape.H; ++head) {
        try {
            function(Place(shape, head));
        } catch (const std::bad_alloc&) {
            out_of_memory = true;
        }
    }
    if (out_of_memory) throw std::bad_alloc();
}

}  // namespace

template <class Number>
void attention_forward(const AttentionShape& shape, const Number* qkv, const float* slopes, Number* y, float* logsumexp,
                       int num_threads) {
    for_each_head(shape, num_threads, [&](const Place& at) {
        forward_one(shape, qkv + at.in_qkv, slopes[at.h], y + at.in_y, logsumexp + at.in_logsumexp);
    });
}

template <class Number>
void attention_backward(const AttentionShape& shape, const Number* qkv, const float* slopes, const float* logsumexp,
                        const Number* grad_y, Number* grad_qkv, int num_threads) {
    for_each_head(shape, num_threads, [&](const Place& at) {
        backward_one(shape, qkv + at.in_qkv, slopes[at.h], logsumexp + at.in_logsumexp, grad_y + at.in_y, grad_qkv + at.in_qkv);
    });
}

template void attention_forward<float>(const AttentionShape&, const float*, const float*, float*, float*, int);
template void attention_forward<BFloat16>(const AttentionShape&, const BFloat16*, const float*, BFloat16*, float*, int);
template void attention_backward<float>(const AttentionShape&, const float*, const float*, const float*, const float*, float*,
                                        int);
template void attention_backward<BFloat16>(const AttentionShape&, const BFloat16*, const float*, const float*, const BFloat16*,
                                           BFloat16*, int);

}  // namespace alilama
