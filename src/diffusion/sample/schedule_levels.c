#include "diffusion/sample/schedule_levels.h"

#include <math.h>

#define HIGHEST 14.61464119f
#define LOWEST 0.02916753f

/* Value i of n on the list's curve, linear in log sigma over its index. */
static float interpolate(const float *list, int count, int i, int n) {
    const double at = (double)i / (n - 1) * (count - 1);
    const int below = at < count - 1 ? (int)at : count - 2;
    const double a = log((double)list[below]), b = log((double)list[below + 1]);
    return (float)exp(a + (b - a) * (at - below));
}

/* Sabour et al., "Align your steps: optimizing sampling schedules in diffusion models" (2024). Ten steps are the list
 * itself; its last level gives way to 0. */
void schedule_fill_ays(const sigma_table *t, int steps, float *sigmas) {
    enum { LEVELS = 11 };
    static const float sd[LEVELS] = {14.6146412293f, 6.4745760956f, 3.8636745985f, 2.6946151520f,
                                     1.8841921177f,  1.3943805092f, 0.9642583904f, 0.6523686016f,
                                     0.3977456272f,  0.1515232662f, 0.0291671582f};
    static const float xl[LEVELS] = {14.6146412293f, 6.3184485287f, 3.7681790315f, 2.1811480769f,
                                     1.3405244945f,  0.8620721141f, 0.5550693289f, 0.3798540708f,
                                     0.2332364134f,  0.1114188177f, 0.0291671582f};
    for (int i = 0; i < steps; i++) sigmas[i] = interpolate(t->is_xl ? xl : sd, LEVELS, i, steps + 1);
}

/* Chen et al., "On the trajectory regularity of ODE-based diffusion sampling" (2024), GITS with coefficient 1.2: the
 * levels between highest and lowest for 2 .. 20 steps. More steps go along the curve of 20. */
static const float gits[][19] = {
    {0.803307f},
    {1.56271636f, 0.52423614f},
    {2.36326075f, 0.92192322f, 0.36617002f},
    {2.84484982f, 1.24153244f, 0.59516323f, 0.25053367f},
    {5.85520077f, 2.05039096f, 0.95350921f, 0.45573691f, 0.17026083f},
    {5.85520077f, 2.45070267f, 1.24153244f, 0.64427125f, 0.29807833f, 0.09824532f},
    {5.85520077f, 2.45070267f, 1.36964464f, 0.803307f, 0.45573691f, 0.25053367f, 0.09824532f},
    {5.85520077f, 2.84484982f, 1.61558151f, 0.95350921f, 0.59516323f, 0.36617002f, 0.19894916f, 0.09824532f},
    {5.85520077f, 2.84484982f, 1.67050016f, 1.08895338f, 0.74807048f, 0.50118381f, 0.32104823f, 0.19894916f,
     0.09824532f},
    {5.85520077f, 2.95596409f, 1.84880662f, 1.24153244f, 0.83188516f, 0.59516323f, 0.41087446f, 0.27464288f,
     0.17026083f, 0.09824532f},
    {5.85520077f, 3.07277966f, 1.98035145f, 1.36964464f, 0.95350921f, 0.69515091f, 0.50118381f, 0.36617002f,
     0.25053367f, 0.17026083f, 0.09824532f},
    {6.77309084f, 3.46139455f, 2.36326075f, 1.56271636f, 1.08895338f, 0.803307f, 0.59516323f, 0.45573691f, 0.34370604f,
     0.25053367f, 0.17026083f, 0.09824532f},
    {6.77309084f, 3.46139455f, 2.45070267f, 1.61558151f, 1.162866f, 0.86115354f, 0.64427125f, 0.50118381f, 0.38853383f,
     0.29807833f, 0.22545385f, 0.17026083f, 0.09824532f},
    {7.49001646f, 4.65472794f, 3.07277966f, 2.12350607f, 1.51179266f, 1.08895338f, 0.83188516f, 0.64427125f,
     0.50118381f, 0.38853383f, 0.29807833f, 0.22545385f, 0.17026083f, 0.09824532f},
    {7.49001646f, 4.65472794f, 3.07277966f, 2.12350607f, 1.51179266f, 1.08895338f, 0.83188516f, 0.64427125f,
     0.50118381f, 0.41087446f, 0.32104823f, 0.25053367f, 0.19894916f, 0.13792117f, 0.09824532f},
    {7.49001646f, 4.65472794f, 3.07277966f, 2.12350607f, 1.51179266f, 1.08895338f, 0.83188516f, 0.64427125f,
     0.50118381f, 0.41087446f, 0.34370604f, 0.27464288f, 0.22545385f, 0.17026083f, 0.13792117f, 0.09824532f},
    {7.49001646f, 4.65472794f, 3.07277966f, 2.19988537f, 1.61558151f, 1.20157266f, 0.92192322f, 0.72133851f,
     0.57119018f, 0.45573691f, 0.36617002f, 0.29807833f, 0.25053367f, 0.19894916f, 0.17026083f, 0.13792117f,
     0.09824532f},
    {7.49001646f, 4.65472794f, 3.07277966f, 2.19988537f, 1.61558151f, 1.24153244f, 0.95350921f, 0.74807048f,
     0.59516323f, 0.4783645f, 0.38853383f, 0.32104823f, 0.27464288f, 0.22545385f, 0.19894916f, 0.17026083f, 0.13792117f,
     0.09824532f},
    {7.49001646f, 4.65472794f, 3.07277966f, 2.19988537f, 1.61558151f, 1.24153244f, 0.95350921f, 0.74807048f,
     0.59516323f, 0.50118381f, 0.41087446f, 0.34370604f, 0.29807833f, 0.25053367f, 0.22545385f, 0.19894916f,
     0.17026083f, 0.13792117f, 0.09824532f}};

void schedule_fill_gits(const sigma_table *t, int steps, float *sigmas) {
    enum { MOST = 20 };
    (void)t;
    float list[MOST + 1] = {HIGHEST};
    const int row = steps < MOST ? steps : MOST;
    for (int i = 1; i < row; i++) list[i] = gits[row - 2][i - 1];
    list[row] = LOWEST;
    for (int i = 0; i < steps; i++) sigmas[i] = steps <= MOST ? list[i] : interpolate(list, MOST + 1, i, steps + 1);
}
