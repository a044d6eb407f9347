// Reads a golden, computes its operation, and applies the bound: C++17, the standard library, nothing of ours.
//
//   g++ -std=c++17 -O2 consumer.cpp -o consumer
//   ./consumer golden/data/operations/conv.same.safetensors conv 1
//   ./consumer golden/data/probes/softmax.hundred.safetensors softmax
//
// Assumes a little-endian machine, as the files are.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct Tensor {
    std::string dtype;
    std::vector<int64_t> shape;
    std::vector<double> values;
};

// The header is JSON of one form only: names, dtypes, and lists of integers.
class Header {
public:
    explicit Header(const std::string& text) : text_(text) {}

    // Calls visit(name, dtype, shape, begin, end) for each tensor.
    template <typename Visit>
    void each(Visit visit) {
        expect('{');
        while (true) {
            std::string name = string();
            expect(':');
            if (name == "__metadata__") skip();
            else entry(name, visit);
            if (peek() != ',') break;
            expect(',');
        }
        expect('}');
    }

private:
    template <typename Visit>
    void entry(const std::string& name, Visit visit) {
        std::string dtype;
        std::vector<int64_t> shape, offsets;
        expect('{');
        while (true) {
            std::string key = string();
            expect(':');
            if (key == "dtype") dtype = string();
            else if (key == "shape") shape = integers();
            else if (key == "data_offsets") offsets = integers();
            else throw std::runtime_error("unknown key " + key);
            if (peek() != ',') break;
            expect(',');
        }
        expect('}');
        if (offsets.size() != 2) throw std::runtime_error(name + ": no data_offsets");
        visit(name, dtype, shape, offsets[0], offsets[1]);
    }

    char peek() {
        while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_])) ++at_;
        if (at_ >= text_.size()) throw std::runtime_error("the header ends too early");
        return text_[at_];
    }
    void expect(char wanted) {
        if (peek() != wanted) throw std::runtime_error(std::string("the header has no ") + wanted);
        ++at_;
    }
    std::string string() {
        expect('"');
        std::string found;
        while (at_ < text_.size() && text_[at_] != '"') {
            if (text_[at_] == '\\') ++at_;
            found += text_.at(at_++);
        }
        expect('"');
        return found;
    }
    std::vector<int64_t> integers() {
        std::vector<int64_t> found;
        expect('[');
        while (peek() != ']') {
            char* end = nullptr;
            found.push_back(std::strtoll(text_.c_str() + at_, &end, 10));
            if (end == text_.c_str() + at_) throw std::runtime_error("expected an integer");
            at_ = static_cast<size_t>(end - text_.c_str());
            if (peek() == ',') ++at_;
        }
        expect(']');
        return found;
    }
    void skip() {
        expect('{');
        while (peek() != '}') {
            string();
            expect(':');
            string();
            if (peek() == ',') ++at_;
        }
        expect('}');
    }

    const std::string& text_;
    size_t at_ = 0;
};

template <typename Number>
std::vector<double> numbers(const char* from, size_t bytes) {
    std::vector<Number> raw(bytes / sizeof(Number));
    std::memcpy(raw.data(), from, raw.size() * sizeof(Number));
    return std::vector<double>(raw.begin(), raw.end());
}

std::map<std::string, Tensor> read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be read");
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    uint64_t length = 0;
    if (bytes.size() < 8) throw std::runtime_error(path + ": cut off");
    std::memcpy(&length, bytes.data(), 8);
    if (length > bytes.size() - 8) throw std::runtime_error(path + ": the header is longer than the file");
    const std::string header = bytes.substr(8, length);
    const char* data = bytes.data() + 8 + length;
    const int64_t available = static_cast<int64_t>(bytes.size() - 8 - length);
    std::map<std::string, Tensor> found;
    Header(header).each([&](const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
                            int64_t begin, int64_t end) {
        const std::map<std::string, int64_t> sizes = {{"F64", 8}, {"F32", 4}, {"I64", 8}};
        if (!sizes.count(dtype)) return;  // of no use to this program
        int64_t count = 1;
        for (int64_t n : shape) count *= n;
        if (begin < 0 || end > available || end - begin != count * sizes.at(dtype))
            throw std::runtime_error(path + ": " + name + " does not lie in the file as its shape says");
        const size_t size = static_cast<size_t>(end - begin);
        const auto values = dtype == "F64"   ? numbers<double>(data + begin, size)
                            : dtype == "F32" ? numbers<float>(data + begin, size)
                                             : numbers<int64_t>(data + begin, size);
        found[name] = {dtype, shape, values};
    });
    return found;
}

// A convolution (N, C, H, W) by (M, C, k, k) with equal padding, stride 1, in float32.
std::vector<float> conv(const Tensor& x, const Tensor& w, const Tensor* b, int64_t pad) {
    const auto C = x.shape[1], H = x.shape[2], W = x.shape[3], M = w.shape[0], kh = w.shape[2], kw = w.shape[3];
    const auto OH = H + 2 * pad - kh + 1, OW = W + 2 * pad - kw + 1;
    std::vector<float> y;
    for (int64_t n = 0; n < x.shape[0]; ++n)
        for (int64_t m = 0; m < M; ++m)
            for (int64_t i = 0; i < OH; ++i)
                for (int64_t j = 0; j < OW; ++j) {
                    float sum = b ? static_cast<float>(b->values[m]) : 0.0f;
                    for (int64_t c = 0; c < C; ++c)
                        for (int64_t p = 0; p < kh; ++p)
                            for (int64_t q = 0; q < kw; ++q) {
                                const auto r = i + p - pad, s = j + q - pad;
                                if (r < 0 || r >= H || s < 0 || s >= W) continue;
                                sum += static_cast<float>(x.values[((n * C + c) * H + r) * W + s]) *
                                       static_cast<float>(w.values[((m * C + c) * kh + p) * kw + q]);
                            }
                    y.push_back(sum);
                }
    return y;
}

// Softmax of the last axis, in float32.
std::vector<float> softmax(const Tensor& x) {
    std::vector<float> y(x.values.begin(), x.values.end());
    const size_t n = static_cast<size_t>(x.shape.back());
    for (size_t row = 0; row < y.size(); row += n) {
        const float largest = *std::max_element(y.begin() + row, y.begin() + row + n);
        float sum = 0;
        for (size_t i = row; i < row + n; ++i) sum += y[i] = std::exp(y[i] - largest);
        for (size_t i = row; i < row + n; ++i) y[i] /= sum;
    }
    return y;
}

int main(int count, char** arguments) {
    if (count < 3) {
        std::fprintf(stderr, "usage: consumer GOLDEN.safetensors conv|softmax [padding]\n");
        return 2;
    }
    try {
        const auto golden = read(arguments[1]);
        const std::string operation = arguments[2];
        const Tensor& x = golden.at("input.x");
        const bool biased = golden.count("input.b") != 0;
        const auto y = operation == "conv" ? conv(x, golden.at("input.w"), biased ? &golden.at("input.b") : nullptr,
                                                  count > 3 ? std::atoll(arguments[3]) : 0)
                                           : softmax(x);
        const Tensor& truth = golden.at("truth.output");
        const Tensor& bound = golden.at("bound.float32.output");
        if (y.size() != truth.values.size()) throw std::runtime_error("the output has another size than the truth");
        double worst = 0;
        for (size_t i = 0; i < y.size(); ++i) {
            const double allowed = bound.values.size() == 1 ? bound.values[0] : bound.values[i];
            const double error = std::fabs(y[i] - truth.values[i]);
            const double ratio = error == 0 ? 0 : error / allowed;
            worst = std::isnan(ratio) ? INFINITY : std::max(worst, ratio);
        }
        std::printf("%s: %zu elements, largest error / bound %.3f: %s\n", operation.c_str(), y.size(), worst,
                    worst <= 1 ? "pass" : "fail");
        return worst <= 1 ? 0 : 1;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 2;
    }
}
