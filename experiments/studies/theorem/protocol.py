"""What the study of Theorem 1 proves, measures and leaves out, in words."""

PROTOCOL = """\
The theorem: with eta_t = eta_0 / sqrt(t) and a fixed rho, the mean of ‖grad L(w_t +
eps_t)‖^2 over t <= T is at most (L(w_1 + eps_1) - min L) / (eta_0 sqrt(T)) + (L G^2 + rho^2
L Gamma^2) eta_0 log(T) / sqrt(T), where phi_t <= eta_t Gamma bounds the angle of eps_t and
eps_{t+1}; Gamma = L for SAM, and Gamma <= L for DISAM.

**For a constant rho it is false: a proof in two lines.** Let L = 1/2 w'Hw with H positive
definite, g = Hw its gradient at w != 0, u = g / ‖g‖ and eps = rho u, as SAM climbs. Then

    ‖grad L(w + eps)‖ = ‖g + rho H u‖ >= u'(g + rho H u)
                      = ‖g‖ + rho u'Hu > rho lambda_min(H)

(in one dimension it is H (|w| + rho)). So the left side stays above (rho
lambda_min(H))^2 for every T, while the right side falls to 0, whatever its constants are:
unless a step lands on the minimum itself, where SAM has no direction. A quadratic is smooth
and bounded from below, and SAM with eta_0 <= 1 / lambda_max(H) stays in a ball, in which a
G bounds its gradients. DISAM is SAM where the losses of the domains are equal, so the proof
holds for it too. That a constant rho keeps SAM from converging all the way is known, there
of the gradient at w and where batches are drawn or L is not convex: Si and Yun, "Practical
Sharpness-Aware Minimization Cannot Converge All the Way to Optima", NeurIPS 2023.

What is measured beside the proof: the angles, the rate and the steps of the paper's own
proof, on problems small enough for gradients of whole batches, so that no noise turns them.
"At most eta_t L" is tested by the smallest eta_t L / phi_t of a run, seed by seed. On the
network L is only bounded from below, by the largest eigenvalue of the Hessian at the start
and at ten points of SAM's run. If that much is enough for the inequality, it holds; if not,
nothing follows, and the claim cannot be told. An inequality has no margin: any difference
decides it. The problems, sizes and step sizes are our choice, rho = 0.05 and lam = 0.1 the
paper's; on the quadratics, whose scale is arbitrary, rho = 0.2 unless said otherwise.

Not tested any more, for it told least: the angles of DISAM along SAM's run (the theorem is
about each method's own), DISAM's rate at lam = 0.1 (the figure shows SAM's), how SAM's
gradient grows with rho (an upper bound says nothing of it; the figure shows it), and how
far apart the losses of the domains end (the studies of the toy, of the synthetic problem
and of convergence ask that)."""

SCOPE = """\
Quadratics: four domains 1/2 (w - c_i)^T A_i (w - c_i) in ten dimensions, random for each
seed, 5,000 steps, eta_0 = 1 / L with L known exactly. Digits network: one hidden layer of
16 tanh units (1,210 parameters) on 64 pixels, five domains of `rotated_digits` with 60
images each, chosen by the seed as are the first weights; 1,000 steps of whole batches, no
augmentation, eta_0 = 0.5 (small steps) and 2 (large steps). What carries over to a
ResNet-50: the proof. It says that the theorem as it stands is no ground for a rate there,
and not that the rate fails there. What does not carry over: the angles, the exponents and
the signs that were measured, which hang on the step size, on the noise of batches and on
the curvature; small and large steps of one network already differ in them."""
