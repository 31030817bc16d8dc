"""Plant small faults in the core, one at a time, and see whether the tests notice.

    python tests/faults.py            # all of them
    python tests/faults.py 3 17       # some, by number

Each is an edit of one place; one instruction set is built without much optimising, and the native
tests run until the first that fails. Prints what was caught and what slipped through, and exits
with 1 if more than 3 of the faults did.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
CORE = HERE.parent / "src" / "layerwise" / "engine" / "core"
TESTS = (
    "test_native.py",
    "test_native_fuzz.py",
    "test_native_seen.py",
    "test_ahead.py",
    "test_steps.py",
)
MAY_SLIP = 3

FAULTS = [
    # vectors: exp, tanh
    ("vectors.hpp", "p = p * r + 1.0f / 24;", "p = p * r + 1.0f / 25;"),
    ("vectors.hpp", "2.12194440e-4f", "2.12194440e-5f"),
    ("vectors.hpp", "n * 1.42860682030941723212e-6", "n * 1.42860682030941723212e-7"),
    ("vectors.hpp", "single ? T(89) : T(710)", "single ? T(88) : T(709)"),
    ("vectors.hpp", "single ? T(-87.3) : T(-708.3)", "single ? T(-60) : T(-600)"),
    ("vectors.hpp", "return e / (e + T(2));", "return e / (e + T(1));"),
    ("vectors.hpp", "return b < a ? b : a;", "return a < b ? a : b;"),
    # products
    ("products.hpp", ": start ? at(start", ": start && m ? at(start"),
    ("products.hpp", "for (int k = 0; k < to; ++k) {",
     "for (int k = 0; k < to - (K > p && to < p); ++k) {"),
    ("products.hpp", "const T one = IN_ROWS ? ak[m * p + k] : ak[k * p + m];",
     "const T one = IN_ROWS ? ak[m * p + k] : ak[k * p];"),
    ("products.hpp", "i + b < I; ++b) to[a * p + b]", "i + b < I - 1; ++b) to[a * p + b]"),
    ("products.hpp", "if (o + l <= O && i + l <= I) {", "if (o + l <= O + 1 && i + l <= I) {"),
    ("products.hpp", "woven<T, true>(row[i], row[i + l / 2])",
     "woven<T, true>(row[i + l / 2], row[i])"),
    ("products.hpp", "nullptr, dw + (long)i * P<T>, dw_panel, n);",
     "nullptr, dw + (long)i * P<T>, dw_panel, n - 1);"),
    ("products.hpp", "c + q * c_panel + (long)from * p, c_panel);",
     "c + q * c_panel + (from ? p : 0), c_panel);"),
    ("products.hpp", "rows_by<T, NP>(k > 0, rows,", "rows_by<T, NP>(k > DEEP, rows,"),
    ("products.hpp", "const int deep = n - b < DEEP ? n - b : DEEP;",
     "const int deep = n - b < DEEP ? n - b : DEEP - 1;"),
    ("products.hpp", "weights_by<T, 1>(b > 0, deep", "weights_by<T, 1>(false, deep"),
    # activations
    ("layers.hpp",
     "LW_ACTIVATION(ReLU, x <= LW_ZERO ? LW_ZERO : x, y > LW_ZERO ? LW_ONE : LW_ZERO);",
     "LW_ACTIVATION(ReLU, x <= LW_ZERO ? LW_ZERO : x, y >= LW_ZERO ? LW_ONE : LW_ZERO);"),
    ("layers.hpp", "x > LW_ZERO ? LW_ONE : all(a));", "x >= LW_ZERO ? LW_ONE : all(a));"),
    ("layers.hpp", "x > LW_ZERO ? LW_ONE : y + a);", "x > LW_ZERO ? LW_ONE : y + T(1));"),
    ("layers.hpp", "x > LW_ZERO ? all(b) : y + a * b);", "x > LW_ZERO ? all(T(1)) : y + a * b);"),
    ("layers.hpp", "(x > a) & (x < b) ? LW_ONE", "(x >= a) & (x < b) ? LW_ONE"),
    ("layers.hpp", "T(1) - y * y);", "T(1) - y);"),
    ("layers.hpp", "exp_<T>(x * x * T(-0.5))", "exp_<T>(x * x * T(-0.49))"),
    ("layers.hpp", "c = T(0.044715)", "c = T(0.044751)"),
    ("layers.hpp", "return t + x * (T(1) - t * t) * sigmoid_<T>(x);",
     "return t + x * (T(1) - t) * sigmoid_<T>(x);"),
    ("layers.hpp", "return x * a > all(b) ? x : bent;", "return x > all(b) ? x : bent;"),
    # normalisation, softmax
    ("layers.hpp", "squares / T(n > 1 ? n - 1 : 1)", "squares / T(n)"),
    ("layers.hpp", "at(mean + c) += factor * (m - at(mean + c));", "at(mean + c) += factor * m;"),
    ("layers.hpp", "at(dx + i) = g * (at(dy + i) - sum / T(n) - hat * along / T(n));",
     "at(dx + i) = g * (at(dy + i) - sum / T(n));"),
    ("layers.hpp", "if (dshift) at(dshift + c) = sum;", "if (dshift) at(dshift + c) = along;"),
    ("layers.hpp", "const T scale = 1 / std::sqrt(squares / columns + eps);",
     "const T scale = 1 / std::sqrt(squares / columns);"),
    ("layers.hpp", "dx[i] = scale * (g - sum / columns - hat * along / columns);",
     "dx[i] = scale * (g - sum / columns + hat * along / columns);"),
    ("layers.hpp", "for (int c = 1; c < columns; ++c) {\n      const T one",
     "for (int c = 1; c < columns - 1; ++c) {\n      const T one"),
    ("layers.hpp", "dy[i] - std::exp(y[i]) * sum", "dy[i] - y[i] * sum"),
    # losses
    ("losses.hpp", "return {d * d, T(2) * d};", "return {d * d, d};"),
    ("losses.hpp", ": a * (size - T(0.5) * a), size <= a", ": a * (size - T(0.5)), size <= a"),
    ("losses.hpp", "yes < -100 ? T(-100) : yes", "yes < -90 ? T(-90) : yes"),
    ("losses.hpp", "(1 - y) * sigmoid - p * y * (1 - sigmoid)",
     "(1 - y) * sigmoid - y * (1 - sigmoid)"),
    ("losses.hpp", "return {sum, double(n), weights};", "return {sum, weights, weights};"),
    ("losses.hpp", "sum += part[k];\n        part = V{};", "sum += part[k];"),
    ("losses.hpp", "most = largest<T>(most, columns_of<T>(o) < O ? at(row + place(o)) : all(low));",
     "most = largest<T>(most, at(row + place(o)));"),
    ("losses.hpp", "const T smooth = nll ? T(0) : s.a, low", "const T smooth = 0, low"),
    ("losses.hpp", "if (ignored) alike = false;", "if (ignored) ;"),
    ("losses.hpp", "total<T>(pulls) * share", "share"),
    ("losses.hpp", "at(back + place(o)) = V{};", ";"),
    ("losses.hpp", "counted += double(batch.w ? batch.w[b] : T(1)) *", "counted += double(1) *"),
    ("losses.hpp", "bool alike = !s.weight;", "bool alike = true;"),
    # optimizers
    ("optimizers.hpp", "const V v = step == 1 ? d : m * at(s0 + i) + part * d;",
     "const V v = m * at(s0 + i) + part * d;"),
    ("optimizers.hpp", "d = g.nesterov ? d + m * v : v;", "d = v;"),
    ("optimizers.hpp", "c2 = 1 - g.beta2;", "c2 = T(1) - T(g.beta2) + T(1e-6);"),
    ("optimizers.hpp", "const T inverse = 1 / std::sqrt(1 - std::pow(g.beta2, step));",
     "const T inverse = 1 / std::sqrt(1 - std::pow(g.beta2, step + 1));"),
    ("optimizers.hpp", "if (g.amsgrad) at(s2 + i) = v = largest<T>(at(s2 + i), v);",
     "if (g.amsgrad) at(s2 + i) = largest<T>(at(s2 + i), v);"),
    ("optimizers.hpp", "at(theta + i) = at(theta + i) * shrink - size * m",
     "at(theta + i) = at(theta + i) - size * m"),
    ("optimizers.hpp", "sign = g.maximize ? -1 : 1;", "sign = 1;"),
    ("optimizers.hpp", "g.lr * next / (1 - g.mu_product * next)",
     "g.lr * next / (1 - g.mu_product)"),
    ("optimizers.hpp", "spread = largest<T>(v - mean * mean, V{});",
     "spread = largest<T>(v - mean, V{});"),
    ("optimizers.hpp", "(step - 1) * g.lr_decay", "step * g.lr_decay"),
    # the network
    ("network.hpp", "if (n - stop == 1) stop = n;", "if (n - stop == 0) stop = n;"),
    ("network.hpp", "if (value - value != 0) {", "if (value != value) {"),
    ("stack.hpp", "if (cap && n <= cap) return;", "if (cap && n <= cap + 1) return;"),
    ("network.hpp", "told.bad_from = done;", "told.bad_from = 0;"),
    ("network.hpp", "told.steps && look() > ask.deadline) break;",
     "told.steps && look() < 0) break;"),
    ("network.hpp", "total += value * count;", "total += value * size;"),
    ("input.hpp", "if (code)  // row 0", "if (true)  // row 0"),
    ("input.hpp", "T(code == c + 1)", "T(code == c)"),
    ("stack.hpp", "at(dx + i) = at(dy + i) * at(l.kept.data() + i);", "at(dx + i) = at(dy + i);"),
    ("stack.hpp", "const T scale = 1 / (1 - T(l.spec.a));", "const T scale = 1;"),
    ("stack.hpp", "if (!(x[i] > 0)) g[s] += dy[i] * x[i];",
     "if (!(x[i] > 0)) g[s] = dy[i] * x[i];"),
    ("stack.hpp", "T(1) / std::max(l.batches, 1L)", "T(1) / (l.batches + 1)"),
    ("network.hpp", "norm / (std::sqrt(squares) + 1e-6)", "norm / (squares + 1e-6)"),
    ("network.hpp", "groups[i].lr = rates[i];", "groups[i].lr = rates[0];"),
    ("network.hpp", "groups[next].lr == groups[i].lr) ++next;", "true) ++next;"),
    ("network.hpp", "groups[k].steps = groups[i].steps;", ";"),
    ("request.hpp", "o.centered, o.maximize, o.decoupled", "o.maximize, o.decoupled"),
    ("request.hpp", "std::tie(o.steps, o.weight_decay, o.momentum", "std::tie(o.steps, o.momentum"),
    ("network.hpp", "ask.rates + told.steps * (long)groups.size()", "ask.rates"),
    ("stack.hpp", "for (int b = 0; b < n; ++b) sum += at(dy + q * step + (long)b * p + c);",
     "for (int b = 1; b < n; ++b) sum += at(dy + q * step + (long)b * p + c);"),
    ("stack.hpp", "const uint64_t first = mixed(s);", "const uint64_t first = s;"),
    ("rows.hpp", "return all ? all + from : nullptr;", "return all;"),
    ("stack.hpp", "s[3][k] = last ^ (last >> 19) ^ t ^ (t >> 8);", "s[3][k] = last ^ t;"),
    # bins
    ("input.hpp", "v = (v - at(left_.data() + at_c)) * at(scale_.data() + at_c);",
     "v = v * at(scale_.data() + at_c);"),
    ("input.hpp", "column(c++, k, left, 1 / (T(s.edges[k][i]) - left), 0, 1);",
     "column(c++, k, left, 1 / (T(s.edges[k][i]) - left), 0, i == 1 ? 2 : 1);"),
    ("input.hpp", "pieces.back().panel != panel || ", ""),
    ("steps.hpp", "std::numeric_limits<T>::quiet_NaN());", "T(0));"),
    ("steps.hpp", "{number.row + k, 1 - f, f}", "{number.row + k, 1, f}"),
    ("steps.hpp", "std::fill_n(table_.data(), (long)group.rows * wide, T(0));", ""),
    ("steps.hpp", "for (; q < panels; ++q) f.template", "for (; q < panels - 1; ++q) f.template"),
    ("products.hpp", "k % p ? k - k % p + p : k + DEEP", "k + DEEP"),
    # several epochs
    ("epochs.hpp", "if (want.patience && without_gain >= want.patience) break;",
     "if (want.patience && without_gain > want.patience) break;"),
    ("epochs.hpp", "if (ask.rates) ask.rates += want.n_rates;", ""),
    ("epochs.hpp", "core.watch(want.looks[e]);", "core.watch(want.looks[0]);"),
    # what is seen
    ("seen.hpp", "squares += d * d;", "squares += one * one;"),
    ("seen.hpp", "s.squares += (n * first + 2 * sum) * first", "s.squares += n * first * first"),
    ("seen.hpp", "beyond -= (one > T(5)) | (one < T(-5));", "beyond -= one > T(5);"),
    ("seen.hpp", "if (c.zeros[k2] != n) silent_", "if (!c.zeros[k2]) silent_"),
    ("memory.hpp", "if (k % 64 == 63) add((int)std::min<long>(L<T>, columns - c));",
     "if (k % 64 == 63) add(L<T>);"),
    ("layers.hpp", "first ? sum[k] : at(sums + k * L<T>) + sum[k];", "sum[k];"),
    ("stack.hpp", "std::exchange(learns, learns || !layer.slots.empty())",
     "std::exchange(learns, !layer.slots.empty())"),
    ("memory.hpp", "if (many & 2) {", "if (many & 2 && !(many & 8)) {"),
    # the binding
    ("binding.cpp", "if (c == l.ignored || (c >= 0 && c < (int64_t)outputs)) continue;",
     "if (c == l.ignored || (c >= 0 && c <= (int64_t)outputs)) continue;"),
    ("binding.cpp", "code > -1 && code < T(input.codes[k]) + 1", "code > -1"),
    ("binding.cpp", "if (row >= 0 && row < n) continue;", "if (row < n) continue;"),
    ("binding.cpp", "return steps > 1 && n - (steps - 1) * batch_size == 1 ? steps - 1 : steps;",
     "return steps;"),
    ("binding.cpp", "if (h.busy.exchange(true)) throw", "if (h.busy.exchange(false)) throw"),
    ("binding.cpp", '"X"_a, "outputs"_a.noconvert())', '"X"_a, "outputs"_a)'),
]  # fmt: skip


def compiled(source: Path, target: Path, *options: str) -> subprocess.CompletedProcess:
    command = ["g++", "-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", *options,
               "-c", str(source), "-o", str(target)]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Build:
    """One instruction set of the core; what a fault does not touch is compiled once."""

    def __init__(self, folder: Path, *options: str) -> None:
        import nanobind

        self.folder, self.options = folder, options
        home = Path(nanobind.__file__).parent
        self.includes = [f"-I{home / 'include'}", f"-I{home / 'ext/robin_map/include'}",
                         f"-I{sysconfig.get_paths()['include']}"]  # fmt: skip
        shutil.copytree(CORE, folder / "core")
        done = compiled(home / "src/nb_combined.cpp", folder / "nb.o", "-DNDEBUG", *self.includes)
        if done.returncode:
            raise SystemExit(done.stderr)
        self.made: dict[str, Path] = {}
        self.made["core"], self.made["binding"] = self._core("whole"), self._binding("whole")

    def _core(self, name: str) -> Path:
        target = self.folder / f"core_{name}.o"
        wide = ["-march=x86-64-v3", "-DLW_BYTES=32"] if os.uname().machine == "x86_64" else []
        done = compiled(self.folder / "core/core.cpp", target, *wide, *self.options,
                        "-DLW_SPACE=lw_only", "-DLW_MAKE=make_plain")  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        return target

    def _binding(self, name: str) -> Path:
        target = self.folder / f"binding_{name}.o"
        done = compiled(self.folder / "core/binding.cpp", target, *self.options,
                        '-DLW_PLAIN_NAME="only"', *self.includes)  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        return target

    def linked(self, core: Path, binding: Path) -> Path:
        library = self.folder / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
        parts = [str(core), str(binding), str(self.folder / "nb.o")]
        subprocess.run(["g++", "-shared", *self.options, *parts, "-o", str(library)], check=True)
        return library

    def with_fault(self, file: str, old: str, new: str) -> Path:
        path = self.folder / "core" / file
        text = path.read_text("utf-8")
        if text.count(old) != 1:
            raise SystemExit(f"{file} has {text.count(old)} times: {old}")
        path.write_text(text.replace(old, new), "utf-8")
        try:
            if file in ("binding.cpp", "epochs.hpp"):
                return self.linked(self.made["core"], self._binding("faulty"))
            return self.linked(self._core("faulty"), self.made["binding"])
        finally:
            path.write_text(text, "utf-8")


def tested(library: Path) -> tuple[bool, str]:
    """Whether all tests pass, and the first that does not."""
    environment = {**os.environ, "LAYERWISE_CORE": str(library), "PYTHONPATH": str(HERE),
                   "LAYERWISE_PLANS": "250", "LAYERWISE_FUZZ": "3000"}  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-p", "other_core", "-p", "no:cacheprovider",
               "-p", "no:xdist", "-x", "-q", "--no-header", "--tb=no",
               *(str(HERE / name) for name in TESTS)]  # fmt: skip
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True,
                              check=False, timeout=600)  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, "it never ended"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    crash = f"it ended with {done.returncode}"
    return done.returncode == 0, failed[0].split("::")[-1] if failed else crash


def main(numbers: list[int]) -> int:
    with tempfile.TemporaryDirectory() as name:
        build = Build(Path(name))
        library = build.linked(build.made["core"], build.made["binding"])
        if not numbers:
            passed, failed = tested(library)
            if not passed:
                raise SystemExit(f"without a fault already: {failed}")
        slipped, chosen = [], numbers or range(len(FAULTS))
        for i in chosen:
            start = time.monotonic()
            file, old, new = FAULTS[i]
            passed, failed = tested(build.with_fault(file, old, new))
            verdict = "slipped through" if passed else f"caught by {failed}"
            print(f"{i:3d} {time.monotonic() - start:4.0f} s {file}: {old!r} -> {new!r}\n"
                  f"    {verdict}", flush=True)  # fmt: skip
            slipped += [i] if passed else []
    print(f"\n{len(chosen) - len(slipped)} of {len(chosen)} caught; slipped: {slipped or 'none'}")
    return int(len(slipped) > MAY_SLIP)


if __name__ == "__main__":
    raise SystemExit(main([int(one) for one in sys.argv[1:]]))
