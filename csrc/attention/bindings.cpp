// The Python face of the attention kernel, a module of its own: it needs OpenMP, which the tokenizer does without.
// bfloat16 tensors come as arrays of uint16, their bits.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "attention.hpp"

namespace py = pybind11;

namespace alilama {
namespace {

static_assert(sizeof(BFloat16) == sizeof(std::uint16_t));

template <class Element>
using Array = py::array_t<Element, py::array::c_style>;

// The numbers of an array that holds `size` of them. `Number` is float, or BFloat16 for arrays of uint16.
template <class Number, class Element>
const Number* numbers(const Array<Element>& array, std::int64_t size) {
    if (array.size() != size) throw std::invalid_argument("an array of another size than the shapes ask for");
    return reinterpret_cast<const Number*>(array.data());
}

template <class Number, class Element>
Number* numbers(Array<Element>& array, std::int64_t size) {
    if (array.size() != size) throw std::invalid_argument("an array of another size than the shapes ask for");
    return reinterpret_cast<Number*>(array.mutable_data());
}

template <class Element>
AttentionShape shape_of(const Array<Element>& qkv) {
    if (qkv.ndim() != 5 || qkv.shape(2) != 3) throw std::invalid_argument("qkv is not of shape (B, T, 3, H, D)");
    return {qkv.shape(0), qkv.shape(1), qkv.shape(3), qkv.shape(4)};
}

template <class Number, class Element>
void forward(const Array<Element>& qkv, const Array<float>& slopes, Array<Element> y, Array<float> logsumexp,
             int num_threads) {
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

}  // namespace

PYBIND11_MODULE(_attention, m) {
    m.doc() = "Causal attention with linear biases on the CPU; see csrc/attention/attention.hpp.";
    const auto qkv = py::arg("qkv").noconvert();
    const auto y = py::arg("y").noconvert(), grad_y = py::arg("grad_y").noconvert();
    const auto slopes = py::arg("slopes").noconvert(), logsumexp = py::arg("logsumexp").noconvert();
    const auto grad_qkv = py::arg("grad_qkv").noconvert(), threads = py::arg("num_threads");
    m.def("forward", &forward<float, float>, qkv, slopes, y, logsumexp, threads);
    m.def("forward", &forward<BFloat16, std::uint16_t>, qkv, slopes, y, logsumexp, threads);
    m.def("backward", &backward<float, float>, qkv, slopes, logsumexp, grad_y, grad_qkv, threads);
    m.def("backward", &backward<BFloat16, std::uint16_t>, qkv, slopes, logsumexp, grad_y, grad_qkv, threads);
}

}  // namespace alilama
