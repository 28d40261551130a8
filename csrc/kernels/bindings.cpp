// The Python face of the kernels, a module of its own: they need OpenMP, which the tokenizer does without.
// bfloat16 tensors come as arrays of uint16, their bits.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "attention.hpp"
#include "decoder.hpp"

namespace py = pybind11;

namespace alilama {
namespace {

static_assert(sizeof(BFloat16) == sizeof(uint16_t));

template <class Element>
using Array = py::array_t<Element, py::array::c_style>;

// The numbers of an array that holds `size` of them. `Number` is float, or BFloat16 for arrays of uint16.
template <class Number, class Element>
const Number* numbers(const Array<Element>& array, int64_t size) {
    if (array.size() != size) throw std::invalid_argument("an array of another size than the shapes ask for");
    return reinterpret_cast<const Number*>(array.data());
}

template <class Number, class Element>
Number* numbers(Array<Element>& array, int64_t size) {
    if (array.size() != size) throw std::invalid_argument("an array of another size than the shapes ask for");
    return reinterpret_cast<Number*>(array.mutable_data());
}

template <class Element>
AttentionShape shape_of(const Array<Element>& qkv) {
    if (qkv.ndim() != 5 || qkv.shape(2) != 3) throw std::invalid_argument("qkv is not of shape (B, T, 3, H, D)");
    return {qkv.shape(0), qkv.shape(1), qkv.shape(3), qkv.shape(4)};
}

template <class Number, class Element>
void forward(const Array<Element>& qkv, const Array<float>& slopes, Array<Element> y, Array<float> logsumexp, int num_threads) {
    const AttentionShape shape = shape_of(qkv);
    const auto [B, T, H, D] = shape;
    const Number* from = numbers<Number>(qkv, 3 * B * T * H * D);
    const float* slope = numbers<float>(slopes, H);
    Number* to = numbers<Number>(y, B * T * H * D);
    float* lse = numbers<float>(logsumexp, B * H * T);
    py::gil_scoped_release without_gil;
    attention_forward(shape, from, slope, to, lse, num_threads);
}

template <class Number, class Element>
void backward(const Array<Element>& qkv, const Array<float>& slopes, const Array<float>& logsumexp,
              const Array<Element>& grad_y, Array<Element> grad_qkv, int num_threads) {
    const AttentionShape shape = shape_of(qkv);
    const auto [B, T, H, D] = shape;
    const Number* from = numbers<Number>(qkv, 3 * B * T * H * D);
    const float* slope = numbers<float>(slopes, H);
    const float* lse = numbers<float>(logsumexp, B * H * T);
    const Number* grad = numbers<Number>(grad_y, B * T * H * D);
    Number* to = numbers<Number>(grad_qkv, 3 * B * T * H * D);
    py::gil_scoped_release without_gil;
    attention_backward(shape, from, slope, lse, grad, to, num_threads);
}

// norm_1, Wqkv, out_proj, norm_2, up_proj and down_proj of a block.
using BlockArrays = std::tuple<Array<float>, Array<float>, Array<float>, Array<float>, Array<float>, Array<float>>;

Decoder make_decoder(const Array<float>& embedding, const std::vector<BlockArrays>& blocks, const Array<float>& norm_f,
                     const Array<float>& slopes, int64_t rows, int64_t longest, int64_t context) {
    if (embedding.ndim() != 2 || blocks.empty() || std::get<4>(blocks[0]).ndim() != 2 || slopes.size() == 0)
        throw std::invalid_argument("a model without blocks, or matrices that are none");
    const int64_t C = embedding.shape(1), H = slopes.size();
    const ModelShape shape{
        embedding.shape(0), C, static_cast<int64_t>(blocks.size()), H, C / H, std::get<4>(blocks[0]).shape(0)};
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max() / 2;  // distances are 32 bits
    if (C % H != 0 || rows < 1 || longest < 1 || context < 0 || context > kMost)
        throw std::invalid_argument("heads, rows, a length or a context out of range");
    const auto vector = [](const Array<float>& array, int64_t size) {
        const float* first = numbers<float>(array, size);
        return std::vector<float>(first, first + size);
    };
    const auto matrix = [](const Array<float>& array, int64_t outputs, int64_t inputs) {
        return PackedMatrix(numbers<float>(array, outputs * inputs), outputs, inputs);
    };
    std::vector<DecoderBlock> packed;
    for (const auto& [norm_1, Wqkv, out_proj, norm_2, up_proj, down_proj] : blocks) {
        packed.push_back({vector(norm_1, C), matrix(Wqkv, 3 * C, C), matrix(out_proj, C, C), vector(norm_2, C),
                          matrix(up_proj, shape.hidden, C), matrix(down_proj, C, shape.hidden)});
    }
    return Decoder(shape, embedding.data(), std::move(packed), numbers<float>(norm_f, C), slopes.data(), rows, longest,
                   context);
}

void read(Decoder& decoder, const Array<int64_t>& ids, const Array<int64_t>& rows, const Array<int64_t>& lengths,
          Array<float> logits, int num_threads) {
    const int64_t n = rows.size();
    const int64_t* length = numbers<int64_t>(lengths, n);
    int64_t total = 0;
    for (int64_t i = 0; i < n; ++i) total += length[i];
    const int64_t* id = numbers<int64_t>(ids, total);
    float* to = numbers<float>(logits, n * decoder.shape().V);
    py::gil_scoped_release without_gil;
    decoder.read(id, rows.data(), length, n, to, num_threads);
}

}  // namespace

PYBIND11_MODULE(_kernels, m) {
    m.doc() = "What the CPU computes by kernels of our own; see attention.hpp and decoder.hpp in csrc/kernels.";
    const auto qkv = py::arg("qkv").noconvert();
    const auto y = py::arg("y").noconvert(), grad_y = py::arg("grad_y").noconvert();
    const auto slopes = py::arg("slopes").noconvert(), logsumexp = py::arg("logsumexp").noconvert();
    const auto grad_qkv = py::arg("grad_qkv").noconvert(), threads = py::arg("num_threads");
    m.def("attention_forward", &forward<float, float>, qkv, slopes, y, logsumexp, threads);
    m.def("attention_forward", &forward<BFloat16, uint16_t>, qkv, slopes, y, logsumexp, threads);
    m.def("attention_backward", &backward<float, float>, qkv, slopes, logsumexp, grad_y, grad_qkv, threads);
    m.def("attention_backward", &backward<BFloat16, uint16_t>, qkv, slopes, logsumexp, grad_y, grad_qkv, threads);
    py::class_<Decoder>(m, "Decoder")
        .def(py::init(&make_decoder), py::arg("embedding"), py::arg("blocks"), py::arg("norm_f"), py::arg("slopes"),
             py::arg("rows"), py::arg("longest"), py::arg("context"))
        .def("read", &read, py::arg("ids"), py::arg("rows"), py::arg("lengths"), py::arg("logits").noconvert(), threads);
}

}  // namespace alilama
