/* Mamba's loops over tokens and their gradients, in float32, for a CPU: the convolution of short_convolution.py and the
 * scan of selective_scan.py. compiled.py compiles this file.
 *
 * A vector holds LANES neighbouring channels. What a block of channels carries from token to token stays in registers.
 *
 * Shapes, all contiguous: B batch, S tokens, I channels, W taps, T = S + W - 1, N states of a channel, K chunks.
 * Each call does the samples from `first` to before `last`.
 */
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
#define INLINE static inline __attribute__((always_inline))
#define LOWEST -86.f /* e^x of less is taken for 0, */
#define HIGHEST 89.f /* of more for infinite: float32 ends there */

INLINE vec load(const float *from, int channels) {
    vec v = {0};
    if (channels == LANES) memcpy(&v, from, sizeof v);
    else memcpy(&v, from, channels * sizeof(float));
    return v;
}

INLINE void store(float *to, vec v, int channels) {
    if (channels == LANES) memcpy(to, &v, sizeof v);
    else memcpy(to, &v, channels * sizeof(float));
}

INLINE float sum(vec v) {
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += v[lane];
    return total;
}

INLINE vec choose(ints which, vec yes, vec no) { return (vec)(((ints)yes & which) | ((ints)no & ~which)); }

/* e^x within two units in the last place: 2^n e^r with n an integer and |r| <= log(2) / 2. */
INLINE vec exponential(vec x) {
    const vec lowest = (vec){0} + LOWEST, highest = (vec){0} + HIGHEST;
    const vec rounds = (vec){0} + 0x1.8p23f; /* added, leaves an integer in the low bits */
    const ints below = x < lowest;
    x = choose(x > highest, highest, choose(below, lowest, x));
    const vec shifted = x * 0x1.715476p0f + rounds, n = shifted - rounds;
    const vec r = x - n * 0x1.62e4p-1f - n * 0x1.7f7d1cp-20f;
    vec p = (vec){0} + 0x1.6850e4p-10f;
    p = p * r + 0x1.123bccp-7f;
    p = p * r + 0x1.555b98p-5f;
    p = p * r + 0x1.55548ep-3f;
    p = p * r + 0x1.fffff8p-2f;
    p = p * r * r + r + 1.f;
    const vec power = (vec)(((ints)shifted + 127) << 23);
    return (vec)((ints)(p * power) & ~below);
}

INLINE void scan(long first, long last, long S, long I, const int N, long chunk, const float *x_BSI,
                    const float *dt_BSI, const float *decay_NI, const float *B_BSN, const float *C_BSN, float *h_BNI,
                    float *kept_BKNI, float *y_BSI) {
    const long K = (S + chunk - 1) / chunk;
    for (long b = first; b < last; b++)
        for (long i = 0; i < I; i += LANES) {
            const int w = I - i < LANES ? (int)(I - i) : LANES;
            vec h[N], decay[N];
            for (int n = 0; n < N; n++) {
                h[n] = load(h_BNI + (b * N + n) * I + i, w);
                decay[n] = load(decay_NI + n * I + i, w);
            }
            for (long t = 0; t < S; t++) {
                if (kept_BKNI && t % chunk == 0)
                    for (int n = 0; n < N; n++) store(kept_BKNI + ((b * K + t / chunk) * N + n) * I + i, h[n], w);
                const float *B = B_BSN + (b * S + t) * N, *C = C_BSN + (b * S + t) * N;
                const vec dt = load(dt_BSI + (b * S + t) * I + i, w), in = dt * load(x_BSI + (b * S + t) * I + i, w);
                vec y = {0};
                for (int n = 0; n < N; n++) {
                    h[n] = exponential(dt * decay[n]) * h[n] + B[n] * in;
                    y += C[n] * h[n];
                }
                store(y_BSI + (b * S + t) * I + i, y, w);
            }
            for (int n = 0; n < N; n++) store(h_BNI + (b * N + n) * I + i, h[n], w);
        }
}

INLINE void scan_back(long first, long last, long S, long I, const int N, const int chunk, const float *x_BSI,
                     const float *dt_BSI, const float *decay_NI, const float *B_BSN, const float *C_BSN,
                     const float *kept_BKNI, const float *dy_BSI, float *dh_BNI, float *dx_BSI, float *ddt_BSI,
                     float *ddecay_BNI, float *dB_BSN, float *dC_BSN) {
    const long K = (S + chunk - 1) / chunk;
    vec a[chunk][N], h[chunk + 1][N], dB[chunk][N], dC[chunk][N];
    for (long b = first; b < last; b++)
        for (long k = K - 1; k >= 0; k--) {
            const int T = S - k * chunk < chunk ? (int)(S - k * chunk) : chunk;
            memset(dB, 0, sizeof dB);
            memset(dC, 0, sizeof dC);
            for (long i = 0; i < I; i += LANES) {
                const int w = I - i < LANES ? (int)(I - i) : LANES;
                vec dh[N], decay[N], ddecay[N];
                for (int n = 0; n < N; n++) {
                    h[0][n] = load(kept_BKNI + ((b * K + k) * N + n) * I + i, w);
                    dh[n] = load(dh_BNI + (b * N + n) * I + i, w);
                    decay[n] = load(decay_NI + n * I + i, w);
                    ddecay[n] = load(ddecay_BNI + (b * N + n) * I + i, w);
                }
                for (int t = 0; t < T; t++) {
                    const long at = b * S + k * chunk + t;
                    const vec dt = load(dt_BSI + at * I + i, w), in = dt * load(x_BSI + at * I + i, w);
                    for (int n = 0; n < N; n++) {
                        a[t][n] = exponential(dt * decay[n]);
                        h[t + 1][n] = a[t][n] * h[t][n] + B_BSN[at * N + n] * in;
                    }
                }
                for (int t = T - 1; t >= 0; t--) { /* dh_t = dy_t C_t + a_{t+1} dh_{t+1} */
                    const long at = b * S + k * chunk + t;
                    const vec dt = load(dt_BSI + at * I + i, w), x = load(x_BSI + at * I + i, w), in = dt * x;
                    const vec dy = load(dy_BSI + at * I + i, w);
                    vec din = {0}, ddt = {0};
                    for (int n = 0; n < N; n++) {
                        dh[n] += C_BSN[at * N + n] * dy;
                        dC[t][n] += dy * h[t + 1][n];
                        dB[t][n] += dh[n] * in;
                        din += B_BSN[at * N + n] * dh[n];
                        dh[n] *= a[t][n];
                        const vec exponent = dh[n] * h[t][n]; /* the gradient of dt A */
                        ddecay[n] += exponent * dt;
                        ddt += exponent * decay[n];
                    }
                    store(dx_BSI + at * I + i, din * dt, w);
                    store(ddt_BSI + at * I + i, ddt + din * x, w);
                }
                for (int n = 0; n < N; n++) {
                    store(dh_BNI + (b * N + n) * I + i, dh[n], w);
                    store(ddecay_BNI + (b * N + n) * I + i, ddecay[n], w);
                }
            }
            for (int t = 0; t < T; t++)
                for (int n = 0; n < N; n++) {
                    dB_BSN[(b * S + k * chunk + t) * N + n] = sum(dB[t][n]);
                    dC_BSN[(b * S + k * chunk + t) * N + n] = sum(dC[t][n]);
                }
        }
}

INLINE vec sigmoid(vec x) {
    const vec one = (vec){0} + 1.f, e = exponential((vec)((ints)x | INT32_MIN)); /* of -|x| */
    return choose(x < (vec){0}, e, one) / (one + e);
}

INLINE vec convolved(const vec *seen, const vec *taps, vec bias, const int W) {
    for (int k = 0; k < W; k++) bias += taps[k] * seen[k];
    return bias;
}

INLINE void convolve(long first, long last, long S, long I, const int W, const float *seen_BTI, const float *taps_WI,
                     const float *bias_I, float *y_BSI) {
    const long T = S + W - 1;
    for (long b = first; b < last; b++)
        for (long i = 0; i < I; i += LANES) {
            const int w = I - i < LANES ? (int)(I - i) : LANES;
            const vec bias = load(bias_I + i, w);
            vec taps[W], seen[W];
            for (int k = 0; k < W; k++) {
                taps[k] = load(taps_WI + k * I + i, w);
                if (k) seen[k] = load(seen_BTI + (b * T + k - 1) * I + i, w);
            }
            for (long t = 0; t < S; t++) {
                for (int k = 1; k < W; k++) seen[k - 1] = seen[k];
                seen[W - 1] = load(seen_BTI + (b * T + t + W - 1) * I + i, w);
                const vec z = convolved(seen, taps, bias, W);
                store(y_BSI + (b * S + t) * I + i, z * sigmoid(z), w);
            }
        }
}

INLINE void convolve_back(long first, long last, long S, long I, const int W, const float *seen_BTI,
                          const float *taps_WI, const float *bias_I, const float *dy_BSI, float *dseen_BTI,
                          float *dtaps_BWI, float *dbias_BI) {
    const long T = S + W - 1;
    for (long b = first; b < last; b++)
        for (long i = 0; i < I; i += LANES) {
            const int w = I - i < LANES ? (int)(I - i) : LANES;
            const vec bias = load(bias_I + i, w);
            vec taps[W], seen[W], dz[W], dtaps[W], dbias = {0};
            for (int k = 0; k < W; k++) {
                taps[k] = load(taps_WI + k * I + i, w);
                dtaps[k] = dz[k] = (vec){0};
                if (k) seen[k] = load(seen_BTI + (b * T + k - 1) * I + i, w);
            }
            for (long t = 0; t < T; t++) { /* dz[k] belongs to token t - k, which had seen what stands at t by tap k */
                for (int k = W - 1; k > 0; k--) dz[k] = dz[k - 1];
                dz[0] = (vec){0};
                if (t < S) {
                    for (int k = 1; k < W; k++) seen[k - 1] = seen[k];
                    seen[W - 1] = load(seen_BTI + (b * T + t + W - 1) * I + i, w);
                    const vec z = convolved(seen, taps, bias, W), s = sigmoid(z);
                    dz[0] = load(dy_BSI + (b * S + t) * I + i, w) * s * (1.f + z * (1.f - s));
                    dbias += dz[0];
                    for (int k = 0; k < W; k++) dtaps[k] += dz[0] * seen[k];
                }
                vec dseen = {0};
                for (int k = 0; k < W; k++) dseen += taps[k] * dz[k];
                store(dseen_BTI + (b * T + t) * I + i, dseen, w);
            }
            store(dbias_BI + b * I + i, dbias, w);
            for (int k = 0; k < W; k++) store(dtaps_BWI + (b * W + k) * I + i, dtaps[k], w);
        }
}

void convolve_forward(long first, long last, long S, long I, long W, const float *seen, const float *taps,
                      const float *bias, float *y) {
    if (W == 4) convolve(first, last, S, I, 4, seen, taps, bias, y);
    else convolve(first, last, S, I, (int)W, seen, taps, bias, y);
}

void convolve_backward(long first, long last, long S, long I, long W, const float *seen, const float *taps,
                       const float *bias, const float *dy, float *dseen, float *dtaps, float *dbias) {
    if (W == 4) convolve_back(first, last, S, I, 4, seen, taps, bias, dy, dseen, dtaps, dbias);
    else convolve_back(first, last, S, I, (int)W, seen, taps, bias, dy, dseen, dtaps, dbias);
}

/* With a number of states that the compiler knows, they stay in registers. */
void scan_forward(long first, long last, long S, long I, long N, long chunk, const float *x, const float *dt,
                  const float *decay, const float *B, const float *C, float *h, float *kept, float *y) {
    if (N == 16) scan(first, last, S, I, 16, chunk, x, dt, decay, B, C, h, kept, y);
    else scan(first, last, S, I, (int)N, chunk, x, dt, decay, B, C, h, kept, y);
}

void scan_backward(long first, long last, long S, long I, long N, long chunk, const float *x, const float *dt,
                   const float *decay, const float *B, const float *C, const float *kept, const float *dy, float *dh,
                   float *dx, float *ddt, float *ddecay, float *dB, float *dC) {
    if (N == 16)
        scan_back(first, last, S, I, 16, (int)chunk, x, dt, decay, B, C, kept, dy, dh, dx, ddt, ddecay, dB, dC);
    else
        scan_back(first, last, S, I, (int)N, (int)chunk, x, dt, decay, B, C, kept, dy, dh, dx, ddt, ddecay, dB, dC);
}
