// Weights: between the parameter vector and the convolutions, and the optimizer.

// Side of the square tiles that are turned in shared memory, so that reads and writes are of neighbours.
#define SIDE 32

// A kernel of the parameter vector, `[taps, inputs, outputs]` in float32, as a convolution reads it: `[outputs,
// taps, padded]`, with 0 in the inputs of padding. One block a tile.
KERNEL weights_in(const float *parameters, Value *weights, int taps, int inputs, int padded, int outputs) {
  SHARED(float, tile, SIDE * (SIDE + 1));
  int across = (outputs + SIDE - 1) / SIDE, rows = taps * padded;
  int first_row = BLOCK / across * SIDE, first_output = BLOCK % across * SIDE;
  for (int i = THREAD; i < SIDE * SIDE; i += THREADS) {
    int row = first_row + i / SIDE, output = first_output + i % SIDE;
    int input = row % padded;
    float value = 0.0f;
    if (row < rows && output < outputs && input < inputs)
      value = parameters[((i64)(row / padded) * inputs + input) * outputs + output];
    tile[i / SIDE * (SIDE + 1) + i % SIDE] = value;
  }
  SYNC();
  for (int i = THREAD; i < SIDE * SIDE; i += THREADS) {
    int row = first_row + i % SIDE, output = first_output + i / SIDE;
    if (row < rows && output < outputs)
      store_one(weights + (i64)output * rows + row, tile[i % SIDE * (SIDE + 1) + i / SIDE]);
  }
}

// Adds a convolution's weight gradient to that of the parameter vector; layouts as in `weights_in`.
KERNEL gradient_in(const Value *weights, float *gradient, int taps, int inputs, int padded, int outputs) {
  SHARED(float, tile, SIDE * (SIDE + 1));
  int across = (outputs + SIDE - 1) / SIDE, rows = taps * padded;
  int first_row = BLOCK / across * SIDE, first_output = BLOCK % across * SIDE;
  for (int i = THREAD; i < SIDE * SIDE; i += THREADS) {
    int row = first_row + i % SIDE, output = first_output + i / SIDE;
    if (row < rows && output < outputs)
      tile[i % SIDE * (SIDE + 1) + i / SIDE] = load_one(weights + (i64)output * rows + row);
  }
  SYNC();
  for (int i = THREAD; i < SIDE * SIDE; i += THREADS) {
    int row = first_row + i / SIDE, output = first_output + i % SIDE;
    int input = row % padded;
    if (row < rows && output < outputs && input < inputs)
      gradient[((i64)(row / padded) * inputs + input) * outputs + output] +=
          tile[i / SIDE * (SIDE + 1) + i % SIDE];
  }
}

// v <- momentum * v + g + weight_decay * w; w <- w - rate * v; g <- 0; average <- keep * average + take * w, if
// there is one. Weight decay is for the parameters with a 1 in `decayed`. `lanes`: all parameters / 8; the
// vectors are padded.
KERNEL sgd_polyak(float *parameters, float *velocity, float *gradient, float *average, const u8 *decayed,
                  u32 lanes, float rate, float momentum, float weight_decay, float keep, float take) {
  u32 at = INDEX;
  if (at >= lanes) return;
  Lane w = load_floats(parameters, at), v = load_floats(velocity, at), g = load_floats(gradient, at);
  Lane zero = {{0}};
  uint2 decays = ((const uint2 *)decayed)[at];
  for (int k = 0; k < LANE; k++) {
    if (byte_of(decays, k)) g.v[k] += weight_decay * w.v[k];
    v.v[k] = momentum * v.v[k] + g.v[k];
    w.v[k] -= rate * v.v[k];
  }
  store_floats(parameters, at, w);
  store_floats(velocity, at, v);
  store_floats(gradient, at, zero);
  if (average) {
    Lane a = load_floats(average, at);
    for (int k = 0; k < LANE; k++) a.v[k] = keep * a.v[k] + take * w.v[k];
    store_floats(average, at, a);
  }
}
