// Numbers too small to be normal count as 0 while the core computes: an optimizer's memory of a unit
// that is silent shrinks step by step into them, and processors take a hundred times longer there.
#pragma once

#include <cstdint>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

class Flushing {
 public:
#if defined(__SSE__)
  Flushing() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }  // flush to zero, denormals are zero
  ~Flushing() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  Flushing() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" ::"r"(before_ | (uint64_t(1) << 24)));
  }
  ~Flushing() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

 private:
  uint64_t before_ = 0;
#else
  Flushing() {}
#endif
  Flushing(const Flushing&) = delete;
  Flushing& operator=(const Flushing&) = delete;
};
