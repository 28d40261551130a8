// A libFuzzer target over the kernels for CPUs. The first bytes of an input are shapes and lengths, the rest seeds numbers.
// Aborts where a kernel and the formula written out in double differ by more than rounding, or where a wrong argument is not
// refused; the sanitizers see to the rest. Run by .ci/fuzz, and by .ci/compile with tests/faults/fuzz/main.cpp.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <vector>

#include "attention.hpp"
#include "decoder.hpp"

namespace alilama {
namespace {

using Doubles = std::vector<double>;
using Floats = std::vector<float>;

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "fuzz_kernels: does not hold: %s\n", what);
    std::abort();
}

// `found` is `expected` to a share of the largest number in it.
template <class Numbers>
void require_close(const Numbers& found, const Doubles& expected, double tolerance, const char* what) {
    double largest = 1;
    for (const double x : expected) largest = std::max(largest, std::abs(x));
    for (size_t i = 0; i < expected.size(); ++i)
        require(std::abs(static_cast<double>(found[i]) - expected[i]) <= tolerance * largest, what);
}

// An input: numbers from its bytes, then random ones that all of its bytes seed.
class Input {
public:
    Input(const uint8_t* data, size_t size) : data_(data), size_(size) {
        uint64_t seed = 1469598103934665603u;
        for (size_t i = 0; i < size; ++i) seed = (seed ^ data[i]) * 1099511628211u;
        random_.seed(seed);
    }
    // A whole number from `least` to `most`.
    int64_t number(int64_t least, int64_t most) {
        const int64_t byte = at_ < size_ ? data_[at_++] : static_cast<int64_t>(random_() % 256);
        return least + byte % (most - least + 1);
    }
    Floats floats(int64_t size, float scale) {
        Floats numbers(static_cast<size_t>(size));
        for (float& x : numbers) x = scale * (static_cast<float>(random_() % 2001) / 1000.0f - 1.0f);
        return numbers;
    }

private:
    const uint8_t* data_;
    size_t size_, at_ = 0;
    std::mt19937_64 random_;
};

// ---- attention ----

BFloat16 rounded(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

float widened(BFloat16 x) {
    const uint32_t bits = uint32_t{x.bits} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

std::vector<BFloat16> rounded(const Floats& numbers) {
    std::vector<BFloat16> result;
    for (const float x : numbers) result.push_back(rounded(x));
    return result;
}

Floats widened(const std::vector<BFloat16>& numbers) {
    Floats result;
    for (const BFloat16 x : numbers) result.push_back(widened(x));
    return result;
}

struct PlainAttention {
    Doubles y, logsumexp, grad_qkv;
};

// Softmax written out, and its gradient.
PlainAttention plain_attention(const AttentionShape& shape, const Floats& qkv, const Floats& slopes, const Floats& grad_y) {
    const int64_t B = shape.B, T = shape.T, H = shape.H, D = shape.D;
    const auto at = [&](int64_t b, int64_t t, int64_t which, int64_t h, int64_t d) {
        return static_cast<size_t>((((b * T + t) * 3 + which) * H + h) * D + d);
    };
    PlainAttention result{Doubles(static_cast<size_t>(B * T * H * D)), Doubles(static_cast<size_t>(B * H * T)),
                          Doubles(qkv.size())};
    const double scale = 1 / std::sqrt(static_cast<double>(D));
    for (int64_t b = 0; b < B; ++b)
        for (int64_t h = 0; h < H; ++h)
            for (int64_t i = 0; i < T; ++i) {
                Doubles p, grad_p;
                double total = 0, mean = 0;
                for (int64_t j = 0; j <= i; ++j) {
                    double score = -static_cast<double>(slopes[static_cast<size_t>(h)]) * static_cast<double>(i - j);
                    for (int64_t d = 0; d < D; ++d)
                        score +=
                            scale * static_cast<double>(qkv[at(b, i, 0, h, d)]) * static_cast<double>(qkv[at(b, j, 1, h, d)]);
                    p.push_back(std::exp(score));
                    total += p.back();
                }
                result.logsumexp[static_cast<size_t>((b * H + h) * T + i)] = std::log(total);
                const auto out = static_cast<size_t>(((b * T + i) * H + h) * D);
                for (int64_t j = 0; j <= i; ++j) {
                    p[static_cast<size_t>(j)] /= total;
                    double grad = 0;
                    for (int64_t d = 0; d < D; ++d) {
                        const double v = static_cast<double>(qkv[at(b, j, 2, h, d)]);
                        const double g = static_cast<double>(grad_y[out + static_cast<size_t>(d)]);
                        result.y[out + static_cast<size_t>(d)] += p[static_cast<size_t>(j)] * v;
                        result.grad_qkv[at(b, j, 2, h, d)] += p[static_cast<size_t>(j)] * g;
                        grad += g * v;
                    }
                    grad_p.push_back(grad);
                    mean += p[static_cast<size_t>(j)] * grad;
                }
                for (int64_t j = 0; j <= i; ++j) {
                    const double grad = p[static_cast<size_t>(j)] * (grad_p[static_cast<size_t>(j)] - mean) * scale;
                    for (int64_t d = 0; d < D; ++d) {
                        result.grad_qkv[at(b, i, 0, h, d)] += grad * static_cast<double>(qkv[at(b, j, 1, h, d)]);
                        result.grad_qkv[at(b, j, 1, h, d)] += grad * static_cast<double>(qkv[at(b, i, 0, h, d)]);
                    }
                }
            }
    return result;
}

void try_attention(Input& input) {
    const AttentionShape shape{input.number(1, 2), input.number(1, 40), input.number(1, 3), input.number(1, 20)};
    const int64_t numbers = shape.B * shape.T * shape.H * shape.D;
    const int num_threads = static_cast<int>(input.number(1, 3));
    // Numbers that bfloat16 holds, so that both kernels are given the same.
    const auto half_qkv = rounded(input.floats(3 * numbers, 2)), half_grad_y = rounded(input.floats(numbers, 1));
    const Floats qkv = widened(half_qkv), grad_y = widened(half_grad_y), slopes = input.floats(shape.H, 1);
    const PlainAttention plain = plain_attention(shape, qkv, slopes, grad_y);

    Floats y(static_cast<size_t>(numbers)), logsumexp(plain.logsumexp.size()), grad_qkv(qkv.size());
    attention_forward(shape, qkv.data(), slopes.data(), y.data(), logsumexp.data(), num_threads);
    attention_backward(shape, qkv.data(), slopes.data(), logsumexp.data(), grad_y.data(), grad_qkv.data(), num_threads);
    require_close(y, plain.y, 1e-4, "attention in float32 is softmax written out");
    require_close(logsumexp, plain.logsumexp, 1e-4, "the log-sum-exp is that of the scores");
    require_close(grad_qkv, plain.grad_qkv, 1e-4, "the gradient in float32 is that of softmax written out");

    std::vector<BFloat16> half_y(y.size()), half_grad_qkv(qkv.size());
    attention_forward(shape, half_qkv.data(), slopes.data(), half_y.data(), logsumexp.data(), num_threads);
    attention_backward(shape, half_qkv.data(), slopes.data(), logsumexp.data(), half_grad_y.data(), half_grad_qkv.data(),
                       num_threads);
    require_close(widened(half_y), plain.y, 1.0 / 128, "attention in bfloat16 is softmax written out, rounded");
    require_close(widened(half_grad_qkv), plain.grad_qkv, 1.0 / 128, "the gradient in bfloat16 is the same, rounded");
}

// ---- the decoder ----

struct PlainBlock {
    Floats norm_1, Wqkv, out_proj, norm_2, up_proj, down_proj;
};

struct PlainModel {
    ModelShape shape;
    Floats embedding, norm_f, slopes;
    std::vector<PlainBlock> blocks;
};

Doubles times(const Floats& matrix, const Doubles& x, int64_t outputs) {
    Doubles y(static_cast<size_t>(outputs));
    for (size_t o = 0; o < y.size(); ++o)
        for (size_t i = 0; i < x.size(); ++i) y[o] += static_cast<double>(matrix[o * x.size() + i]) * x[i];
    return y;
}

Doubles normalized(const Doubles& x, const Floats& weight) {
    double mean = 0, variance = 0;
    for (const double each : x) mean += each / static_cast<double>(x.size());
    for (const double each : x) variance += (each - mean) * (each - mean) / static_cast<double>(x.size());
    Doubles y;
    for (size_t c = 0; c < x.size(); ++c)
        y.push_back((x[c] - mean) / std::sqrt(variance + 1e-5) * static_cast<double>(weight[c]));
    return y;
}

void add(Doubles& x, const Doubles& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

// Logits after the last id, all computed anew; a token sees the `context` last ones.
Doubles plain_logits(const PlainModel& model, const std::vector<int64_t>& ids, int64_t context) {
    const int64_t C = model.shape.C, H = model.shape.H, D = model.shape.D;
    std::vector<Doubles> x;
    for (const int64_t id : ids) x.emplace_back(model.embedding.begin() + id * C, model.embedding.begin() + (id + 1) * C);
    for (const PlainBlock& block : model.blocks) {
        std::vector<Doubles> qkv;
        for (const Doubles& each : x) qkv.push_back(times(block.Wqkv, normalized(each, block.norm_1), 3 * C));
        for (size_t i = 0; i < x.size(); ++i) {
            Doubles attended(static_cast<size_t>(C));
            const size_t first = i + 1 > static_cast<size_t>(context) ? i + 1 - static_cast<size_t>(context) : 0;
            for (int64_t h = 0; h < H; ++h) {
                Doubles weights;
                double total = 0;
                for (size_t j = first; j <= i; ++j) {
                    double score = 0;
                    for (int64_t d = h * D; d < (h + 1) * D; ++d)
                        score += qkv[i][static_cast<size_t>(d)] * qkv[j][static_cast<size_t>(C + d)];
                    weights.push_back(
                        std::exp(score / std::sqrt(static_cast<double>(D)) -
                                 static_cast<double>(model.slopes[static_cast<size_t>(h)]) * static_cast<double>(i - j)));
                    total += weights.back();
                }
                for (size_t j = first; j <= i; ++j)
                    for (int64_t d = h * D; d < (h + 1) * D; ++d)
                        attended[static_cast<size_t>(d)] += weights[j - first] / total * qkv[j][static_cast<size_t>(2 * C + d)];
            }
            add(x[i], times(block.out_proj, attended, C));
        }
        for (Doubles& each : x) {
            Doubles hidden = times(block.up_proj, normalized(each, block.norm_2), model.shape.hidden);
            for (double& h : hidden) h = h * std::erfc(-h / std::sqrt(2.0)) / 2;
            add(each, times(block.down_proj, hidden, C));
        }
    }
    return times(model.embedding, normalized(x.back(), model.norm_f), model.shape.V);
}

PlainModel make_model(Input& input) {
    PlainModel model;
    const int64_t H = input.number(1, 3), D = input.number(1, 9), C = H * D, hidden = input.number(1, 40);
    const int64_t V = input.number(1, 60), blocks = input.number(1, 2);
    model.shape = {V, C, blocks, H, D, hidden};
    model.embedding = input.floats(V * C, 1);
    model.norm_f = input.floats(C, 1);
    model.slopes = input.floats(H, 1);
    for (float& slope : model.slopes) slope = std::abs(slope);
    for (int64_t i = 0; i < blocks; ++i)
        model.blocks.push_back({input.floats(C, 1), input.floats(3 * C * C, 0.5f), input.floats(C * C, 0.5f),
                                input.floats(C, 1), input.floats(hidden * C, 0.5f), input.floats(C * hidden, 0.5f)});
    return model;
}

void try_decoder(Input& input) {
    const PlainModel model = make_model(input);
    const ModelShape& shape = model.shape;
    const int64_t num_rows = input.number(1, 3), longest = input.number(1, 200), context = input.number(0, 70);
    std::vector<DecoderBlock> packed;
    for (const PlainBlock& block : model.blocks)
        packed.push_back({block.norm_1, PackedMatrix(block.Wqkv.data(), 3 * shape.C, shape.C),
                          PackedMatrix(block.out_proj.data(), shape.C, shape.C), block.norm_2,
                          PackedMatrix(block.up_proj.data(), shape.hidden, shape.C),
                          PackedMatrix(block.down_proj.data(), shape.C, shape.hidden)});
    Decoder decoder(shape, model.embedding.data(), std::move(packed), model.norm_f.data(), model.slopes.data(), num_rows,
                    longest, context);
    std::vector<std::vector<int64_t>> texts(static_cast<size_t>(num_rows));
    for (int64_t turn = input.number(1, 4); turn > 0; --turn) {
        std::vector<int64_t> ids, rows, lengths;
        for (int64_t row = num_rows - 1; row >= 0; --row) {
            const int64_t left = longest - static_cast<int64_t>(texts[static_cast<size_t>(row)].size());
            if (left == 0 || input.number(0, 3) == 0) continue;
            rows.push_back(row);
            lengths.push_back(std::min(left, input.number(0, 1) ? input.number(1, 100) : 1));
            for (int64_t i = 0; i < lengths.back(); ++i) {
                ids.push_back(input.number(0, shape.V - 1));
                texts[static_cast<size_t>(row)].push_back(ids.back());
            }
        }
        Floats logits(rows.size() * static_cast<size_t>(shape.V));
        const auto read = [&](const std::vector<int64_t>& which, const std::vector<int64_t>& how_many) {
            decoder.read(ids.data(), which.data(), how_many.data(), static_cast<int64_t>(which.size()), logits.data(),
                         static_cast<int>(input.number(1, 3)));
        };
        const auto require_refusal = [&](const std::vector<int64_t>& which, const std::vector<int64_t>& how_many) {
            bool is_refused = false;
            try {
                read(which, how_many);
            } catch (const std::invalid_argument&) {
                is_refused = true;
            }
            require(is_refused, "a row or a length out of range is refused, and nothing is read");
        };
        if (rows.empty()) continue;
        require_refusal({num_rows}, {1});
        require_refusal({-1}, {1});
        require_refusal({rows[0]}, {0});
        require_refusal({rows[0]}, {longest + 1});
        read(rows, lengths);
        for (size_t i = 0; i < rows.size(); ++i) {
            const Doubles expected = plain_logits(model, texts[static_cast<size_t>(rows[i])], context > 0 ? context : longest);
            const Floats found(logits.begin() + static_cast<std::ptrdiff_t>(i) * shape.V,
                               logits.begin() + static_cast<std::ptrdiff_t>(i + 1) * shape.V);
            require_close(found, expected, 2e-3, "cached logits are those of the whole text");
        }
    }
}

}  // namespace
}  // namespace alilama

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    alilama::Input input(data + 1, size - 1);
    if (data[0] % 2 == 0) {
        alilama::try_attention(input);
    } else {
        alilama::try_decoder(input);
    }
    return 0;
}
