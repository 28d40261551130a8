// Runs a fuzz target without libFuzzer, under any compiler and on any machine: main [COUNT] [FOLDER...]. Tries every file of
// the folders, then COUNT inputs of seeded random bytes (1,000 unless given), half of them mutated files. Prints how many.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void run(const std::string& input) { LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size()); }

std::vector<std::string> read_files(int number, char** folders) {
    std::vector<std::string> contents;
    for (int i = 0; i < number; ++i)
        for (const auto& entry : std::filesystem::directory_iterator(folders[i])) {
            std::ifstream file(entry.path(), std::ios::binary);
            contents.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
        }
    return contents;
}

}  // namespace

int main(int argc, char** argv) {
    const long count = argc > 1 ? std::atol(argv[1]) : 1000;
    const std::vector<std::string> files = read_files(argc > 2 ? argc - 2 : 0, argv + 2);
    for (const std::string& file : files) run(file);
    std::mt19937_64 random(1);
    for (long i = 0; i < count; ++i) {
        std::string input;
        if (i % 2 == 0 && !files.empty()) {
            input = files[random() % files.size()];
            for (size_t changes = 1 + random() % 8; changes > 0 && !input.empty(); --changes)
                input[random() % input.size()] = static_cast<char>(random());
        } else {
            input.resize(random() % 512);
            for (char& byte : input) byte = static_cast<char>(random());
        }
        run(input);
    }
    std::printf("%zu files and %ld random inputs: every one as the plain way\n", files.size(), count);
    return 0;
}
