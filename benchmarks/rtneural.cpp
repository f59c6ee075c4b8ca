// RTNeural's LSTM of one compiled-in size, timed for small.py. Compiled with -DINPUTS=.. -DHIDDEN=..; the argument names
// a file of float32: the kernel [INPUTS][4 HIDDEN], the recurrent kernel [HIDDEN][4 HIDDEN], the bias [4 HIDDEN], gates in
// the order i f c o, then the input [STEPS][INPUTS] up to the file's end.
//
// It answers lines of standard input: "check" with the state after all steps from a zero state, "time T n" with the
// seconds of one of n blocks of T steps. The state goes on from block to block.
#include <RTNeural/RTNeural.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

using Model = RTNeural::ModelT<float, INPUTS, HIDDEN, RTNeural::LSTMLayerT<float, INPUTS, HIDDEN>>;

static std::vector<std::vector<float>> matrix(const float* from, int rows, int columns)
{
    std::vector<std::vector<float>> result;
    for (int i = 0; i < rows; ++i)
        result.emplace_back(from + i * columns, from + (i + 1) * columns);
    return result;
}

int main(int count, char** arguments)
{
    if (count != 2)
        return 2;
    std::ifstream file(arguments[1], std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::vector<float> numbers(bytes.size() / sizeof(float));
    std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(float));
    const float* at = numbers.data();
    static Model model;
    auto& layer = model.get<0>();
    layer.setWVals(matrix(at, INPUTS, 4 * HIDDEN));
    at += INPUTS * 4 * HIDDEN;
    layer.setUVals(matrix(at, HIDDEN, 4 * HIDDEN));
    at += HIDDEN * 4 * HIDDEN;
    layer.setBVals(matrix(at, 1, 4 * HIDDEN)[0]);
    at += 4 * HIDDEN;
    const int steps = static_cast<int>((numbers.data() + numbers.size() - at) / INPUTS);
    static float output[HIDDEN];
    char order[16];
    while (std::scanf("%15s", order) == 1) {
        if (!std::strcmp(order, "check")) {
            model.reset();
            for (int t = 0; t < steps; ++t)
                model.forward(at + t * INPUTS);
            for (int j = 0; j < HIDDEN; ++j)
                std::printf("%.9g ", model.getOutputs()[j]);
        } else {
            int length = 0;
            long times = 0;
            if (std::scanf("%d %ld", &length, &times) != 2)
                return 2;
            const auto begin = std::chrono::steady_clock::now();
            for (long i = 0; i < times; ++i)
                for (int t = 0; t < length; ++t) {
                    model.forward(at + t % steps * INPUTS);
                    std::memcpy(output, model.getOutputs(), sizeof output);
                }
            const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
            std::printf("%.12g", took.count() / times + 0 * output[0]);
        }
        std::printf("\n");
        std::fflush(stdout);
    }
    return 0;
}
