// torch's optimizers over one flat buffer of parameters, in torch's order of operations.
#pragma once

#include "request.hpp"
#include "vectors.hpp"

namespace LW_SPACE {

// Up to three numbers are remembered for each parameter: s0, s1, s2 are buffers like theta. Factors
// are made in double and rounded once, as torch does: 1 - 0.999 in float would be off by 1e-5.
template <class T>
void update(OptimizerKind kind, Group& g, T* theta, const T* grad, T* s0, T* s1, T* s2) {
  using V = typename Of<T>::V;
  const long step = ++g.steps;
  const T lr = g.lr, sign = g.maximize ? -1 : 1;
  const T decay = g.decoupled ? 0 : g.weight_decay;
  const T shrink = g.decoupled ? 1 - g.lr * g.weight_decay : 1;
  const T eps = g.eps, b1 = 1 - g.beta1, b2 = g.beta2, c2 = 1 - g.beta2;
  switch (kind) {
    case OptimizerKind::sgd: {
      const T m = g.momentum, part = 1 - g.dampening;
      for (long i = g.from; i < g.to; i += L<T>) {
        V d = sign * at(grad + i) + decay * at(theta + i);
        if (m != 0) {
          const V v = step == 1 ? d : m * at(s0 + i) + part * d;
          at(s0 + i) = v;
          d = g.nesterov ? d + m * v : v;
        }
        at(theta + i) -= lr * d;
      }
      break;
    }
    case OptimizerKind::adam: {  // Kingma & Ba (2015); Loshchilov & Hutter (2019)
      const T size = g.lr / (1 - std::pow(g.beta1, step));
      const T inverse = 1 / std::sqrt(1 - std::pow(g.beta2, step));
      for (long i = g.from; i < g.to; i += L<T>) {
        const V d = sign * at(grad + i) + decay * at(theta + i);
        const V m = at(s0 + i) + b1 * (d - at(s0 + i));
        V v = b2 * at(s1 + i) + c2 * d * d;
        at(s0 + i) = m;
        at(s1 + i) = v;
        if (g.amsgrad) at(s2 + i) = v = largest<T>(at(s2 + i), v);
        at(theta + i) = at(theta + i) * shrink - size * m / (sqrt_<T>(v) * inverse + eps);
      }
      break;
    }
    case OptimizerKind::nadam: {  // Dozat (2016)
      const double mu = g.beta1 * (1 - 0.5 * std::pow(0.96, step * g.momentum_decay));
      const double next = g.beta1 * (1 - 0.5 * std::pow(0.96, (step + 1) * g.momentum_decay));
      g.mu_product = g.product_in_double ? g.mu_product * mu : float(g.mu_product) * float(mu);
      const T correction = 1 - std::pow(g.beta2, step);
      const T by_grad = g.lr * (1 - mu) / (1 - g.mu_product);
      const T by_mean = g.lr * next / (1 - g.mu_product * next);
      for (long i = g.from; i < g.to; i += L<T>) {
        const V d = sign * at(grad + i) + decay * at(theta + i);
        const V m = at(s0 + i) + b1 * (d - at(s0 + i));
        const V v = b2 * at(s1 + i) + c2 * d * d;
        at(s0 + i) = m;
        at(s1 + i) = v;
        at(theta + i) = at(theta + i) * shrink -
                        (by_grad * d + by_mean * m) / (sqrt_<T>(v / correction) + eps);
      }
      break;
    }
    case OptimizerKind::rmsprop: {  // Hinton (2012); centred: Graves (2013)
      const T keep = g.alpha, part = 1 - g.alpha, m = g.momentum;
      for (long i = g.from; i < g.to; i += L<T>) {
        const V d = sign * at(grad + i) + decay * at(theta + i);
        const V v = keep * at(s0 + i) + part * d * d;
        at(s0 + i) = v;
        V spread = v;
        if (g.centered) {
          const V mean = at(s1 + i) + part * (d - at(s1 + i));
          at(s1 + i) = mean;
          spread = largest<T>(v - mean * mean, V{});  // rounding must not make it negative
        }
        V by = d / (sqrt_<T>(spread) + eps);
        if (m != 0) at(s2 + i) = by = m * at(s2 + i) + by;
        at(theta + i) -= lr * by;
      }
      break;
    }
    case OptimizerKind::adagrad: {  // Duchi, Hazan & Singer (2011)
      const T size = g.lr / (1 + (step - 1) * g.lr_decay);
      for (long i = g.from; i < g.to; i += L<T>) {
        const V d = sign * at(grad + i) + decay * at(theta + i);
        at(s0 + i) += d * d;
        at(theta + i) -= size * d / (sqrt_<T>(at(s0 + i)) + eps);
      }
      break;
    }
  }
}

}  // namespace LW_SPACE
