// Batch norm and ReLU on the way back.

// The sums over rows of the gradient behind the ReLU, and of that times (z - mean): `[parts][2, channels]`.
// `gradient`, of a = relu(norm(z)), is added to by `more` if that is given; a is written if it is given. Without
// `masked` there is no ReLU: the sums for a tangent of z.
KERNEL bn_back_sums(Value *gradient, const Value *more, const Value *z, const float *norm, Value *a,
                    float *partial, int masked, int rows, int channels, int rows_per_block) {
  SHARED(float, room, 2 * LANE * THREADS);
  Share s = share(rows, channels, rows_per_block);
  Lane sum = {{0}}, product = {{0}};
  if (s.row < s.end) {
    Lane mean = vector(norm, MEAN, channels, s.group), scale = vector(norm, SCALE, channels, s.group),
         shift = vector(norm, SHIFT, channels, s.group);
    for (int r = s.row; r < s.end; r += s.depth) {
      i64 at = (i64)r * s.groups + s.group;
      Lane g = load(gradient, at), x = load(z, at), y;
      if (more) {
        Lane m = load(more, at);
        for (int k = 0; k < LANE; k++) g.v[k] += m.v[k];
        store(gradient, at, g);
        g = load(gradient, at);
      }
      for (int k = 0; k < LANE; k++) {
        y.v[k] = normalized(x.v[k], scale.v[k], shift.v[k]);
        float on = !masked || y.v[k] > 0.0f ? g.v[k] : 0.0f;
        sum.v[k] += on;
        product.v[k] = fmaf(on, x.v[k] - mean.v[k], product.v[k]);
        y.v[k] = relu(y.v[k]);
      }
      if (a) store(a, at, y);
    }
  }
  fold(s, sum, product, room, partial + (i64)s.part * 2 * channels);
}

// From the sums of all parts: what turns the gradient into that of z, and what is added to the gradients of
// gamma and beta, if they are given.
KERNEL bn_back_finish(const float *partial, float *norm, float *gamma, float *beta, int rows, int channels,
                      int parts) {
  SHARED(double, sums, THREADS);
  SHARED(double, products, THREADS);
  int c = BLOCK * CHANNELS + THREAD % CHANNELS, part = THREAD / CHANNELS;
  double sum = 0.0, product = 0.0;
  if (c < channels) {
    for (int p = part; p < parts; p += PARTS) {
      sum += partial[(i64)p * 2 * channels + c];
      product += partial[((i64)p * 2 + 1) * channels + c];
    }
  }
  sums[THREAD] = sum;
  products[THREAD] = product;
  SYNC();
  if (part > 0 || c >= channels) return;
  sum = in_order(sums + THREAD);
  product = in_order(products + THREAD);
  double inverse = norm[INVERSE * channels + c], scale = norm[SCALE * channels + c];
  double projected = product * inverse;
  norm[OF_GRADIENT * channels + c] = (float)scale;
  norm[OF_VALUE * channels + c] = (float)(-scale * inverse * projected / rows);
  norm[ONE * channels + c] =
      (float)(scale * (inverse * projected * norm[MEAN * channels + c] - sum) / rows);
  if (gamma) {
    gamma[c] += (float)projected;
    beta[c] += (float)sum;
  }
}

// The gradient of a = relu(norm(z)) becomes that of z, in place; `residual`, if given, is added: the gradient
// of z past the norm.
KERNEL bn_back_apply(Value *gradient, const Value *z, const Value *residual, const float *norm, u32 groups,
                     int channels) {
  u32 at = INDEX;
  if (at >= groups) return;
  int group = at % (channels / LANE);
  Lane scale = vector(norm, SCALE, channels, group), shift = vector(norm, SHIFT, channels, group),
       of_gradient = vector(norm, OF_GRADIENT, channels, group),
       of_value = vector(norm, OF_VALUE, channels, group), one = vector(norm, ONE, channels, group);
  Lane g = load(gradient, at), x = load(z, at), more = {{0}};
  if (residual) more = load(residual, at);
  for (int k = 0; k < LANE; k++) {
    float on = normalized(x.v[k], scale.v[k], shift.v[k]) > 0.0f ? g.v[k] : 0.0f;
    g.v[k] = fmaf(on, of_gradient.v[k], fmaf(x.v[k], of_value.v[k], one.v[k])) + more.v[k];
  }
  store(gradient, at, g);
}

// The tangent of a = relu(norm(z)), of 8 channels, from that of z, by the coefficients of `bn_back_finish`.
DEVICE Lane tangent_of(const Value *tangent, const Value *z, const float *norm, i64 at, int channels, int group) {
  Lane scale = vector(norm, SCALE, channels, group), shift = vector(norm, SHIFT, channels, group),
       of_gradient = vector(norm, OF_GRADIENT, channels, group),
       of_value = vector(norm, OF_VALUE, channels, group), one = vector(norm, ONE, channels, group);
  Lane t = load(tangent, at), x = load(z, at);
  for (int k = 0; k < LANE; k++) {
    float moved = fmaf(t.v[k], of_gradient.v[k], fmaf(x.v[k], of_value.v[k], one.v[k]));
    t.v[k] = normalized(x.v[k], scale.v[k], shift.v[k]) > 0.0f ? moved : 0.0f;
  }
  return t;
}

// The tangent of a = relu(norm(z)), of `groups` times 8 values, from that of z.
KERNEL bn_tangent(const Value *tangent, const Value *z, const float *norm, Value *a, u32 groups, int channels) {
  u32 at = INDEX;
  if (at < groups) store(a, at, tangent_of(tangent, z, norm, at, channels, at % (channels / LANE)));
}

// The tangent of the pre-logits: the mean over the pixels of each image of that of relu(norm(y)). `groups`: n *
// channels / 8.
KERNEL mean_tangents(const Value *tangent, const Value *y, const float *norm, float *features, u32 groups,
                     int pixels, int channels) {
  u32 at = INDEX;
  if (at >= groups) return;
  u32 across = channels / LANE, group = at % across, image = at / across;
  Lane sum = {{0}};
  for (int p = 0; p < pixels; p++) {
    Lane t = tangent_of(tangent, y, norm, (image * pixels + p) * across + group, channels, group);
    for (int k = 0; k < LANE; k++) sum.v[k] += t.v[k];
  }
  for (int k = 0; k < LANE; k++) sum.v[k] *= 1.0f / pixels;
  store_floats(features, at, sum);
}
