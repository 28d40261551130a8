// Causal self-attention with linear biases (ALiBi, Press et al. 2022, arXiv:2108.12409) on the CPU:
//
//     score(i, j) = q_i . k_j / sqrt(D) - slope_h * (i - j)  for j <= i,    y_i = sum_j softmax_j(score(i, j)) v_j
//
// No (T, T) matrix is ever in memory: four queries at a time meet all keys before them, and the backward pass computes
// the scores again from the log-sum-exp of each row (Dao et al. 2022, arXiv:2205.14135). O(B H T^2 D) time, half of what
// a mask would take; O(T D) memory for a thread. All sums are in float32, whatever the numbers are stored in.
// Both functions throw std::bad_alloc if that memory cannot be allocated.
#pragma once

#include <cstdint>

namespace alilama {

// A float's upper half, as in torch.bfloat16.
struct BFloat16 {
    uint16_t bits;
};

// B batch, T time, H heads, D head width.
struct AttentionShape {
    int64_t B, T, H, D;
};

// qkv is (B, T, 3, H, D), slopes (H,), y (B, T, H, D), logsumexp (B, H, T).
template <class Number>
void attention_forward(const AttentionShape& shape, const Number* qkv, const float* slopes, Number* y, float* logsumexp,
                       int num_threads);

// The gradient of qkv, (B, T, 3, H, D), from that of y; logsumexp is that of attention_forward.
template <class Number>
void attention_backward(const AttentionShape& shape, const Number* qkv, const float* slopes, const float* logsumexp,
                        const Number* grad_y, Number* grad_qkv, int num_threads);

}  // namespace alilama
