"""The kinetic equation on a grid of angles, in tensor form: an independent NumPy reference."""

import numpy as np


def box_wavenumbers(shape, lengths, nyquist=True):
    ks = []
    for n, length in zip(shape, lengths):
        m = np.fft.fftfreq(n, 1 / n)
        if not nyquist and n % 2 == 0:
            m[n // 2] = 0
        ks.append(2 * np.pi * m / length)
    return np.meshgrid(*ks, indexing="ij")


class ThetaGrid:
    """psi[x, y, theta] on a periodic box; moments by quadrature, tensors by `einsum`."""

    def __init__(self, shape, lengths, num_angles):
        self.shape, self.lengths, self.num_angles = shape, lengths, num_angles
        self.theta = 2 * np.pi * np.arange(num_angles) / num_angles
        self.p = np.array([np.cos(self.theta), np.sin(self.theta)])
        self.dtheta = 2 * np.pi / num_angles
        self.kx, self.ky = box_wavenumbers(shape, lengths, nyquist=False)
        kx, ky = box_wavenumbers(shape, lengths)
        self.k2 = kx**2 + ky**2
        nx, ny = (np.fft.fftfreq(n, 1 / n) for n in shape)
        keep = (np.abs(nx) < shape[0] / 3)[:, None] & (np.abs(ny) < shape[1] / 3)[None]
        self.keep = keep

    def dx(self, f, axis):
        k = (self.kx, self.ky)[axis]
        k = k.reshape(k.shape + (1,) * (f.ndim - 2))
        return np.fft.ifft2(1j * k * np.fft.fft2(f, axes=(0, 1)), axes=(0, 1)).real

    def grad(self, u):
        """(grad u)_ij = d u_i / d x_j for u[i, x, y]."""
        return np.array([[self.dx(u[i], j) for j in range(2)] for i in range(2)])

    def moments(self, psi):
        p, dth = self.p, self.dtheta
        c = psi.sum(-1) * dth
        d = np.einsum("it,jt,xyt->ijxy", p, p, psi) * dth
        s = np.einsum("it,jt,kt,lt,xyt->ijklxy", p, p, p, p, psi, optimize=True) * dth
        return c, d, s

    def flow(self, psi, alpha, beta, zeta, sweeps=40, mask_stress=False):
        """Velocity, and the converged stress, of the Stokes problem by plain Picard sweeps."""
        c, d, s = self.moments(psi)
        eye = np.eye(2)[:, :, None, None]
        dd = np.einsum("ikxy,kjxy->ijxy", d, d)
        sd = np.einsum("ijklxy,klxy->ijxy", s, d)
        u = np.zeros((2, *self.shape))
        k = np.array([self.kx, self.ky])
        inverse = np.where(self.k2 > 0, 1 / np.where(self.k2 > 0, self.k2, 1), 0)
        for _ in range(sweeps):
            g = self.grad(u)
            e = (g + g.transpose(1, 0, 2, 3)) / 2
            se = np.einsum("ijklxy,klxy->ijxy", s, e)
            sigma = alpha * (d - c * eye / 2) + beta * se - 2 * zeta * beta * (dd - sd)
            sh = np.fft.fft2(sigma)
            if mask_stress:
                sh = sh * self.keep
            force = np.einsum("jxy,ijxy->ixy", 1j * k, sh)
            along = np.einsum("ixy,ixy->xy", k, force) * inverse
            uh = (force - k * along) * inverse
            u = np.fft.ifft2(uh).real
        return u, sigma

    def rate(self, psi, alpha, beta, zeta, v0, d_t, d_r, dealias=True, mask_stress=False):
        """d psi / dt, by finite Fourier sums in all three directions."""
        u, _ = self.flow(psi, alpha, beta, zeta, mask_stress=mask_stress)
        _, d, _ = self.moments(psi)
        t = self.grad(u) + 2 * zeta * d
        p = self.p
        perp = np.array([-np.sin(self.theta), np.cos(self.theta)])
        thdot = np.einsum("it,ijxy,jt->xyt", perp, t, p)
        m = np.fft.fftfreq(self.num_angles, 1 / self.num_angles)
        flux_th = np.fft.fft(thdot * psi, axis=-1)
        nonlinear = -np.fft.ifft(1j * m * flux_th, axis=-1).real
        for axis in range(2):
            flux = (u[axis][..., None] + v0 * p[axis]) * psi
            nonlinear -= self.dx(flux, axis)
        if dealias:
            h = np.fft.fft2(nonlinear, axes=(0, 1)) * self.keep[..., None]
            nonlinear = np.fft.ifft2(h, axes=(0, 1)).real
        lap = np.fft.ifft2(-self.k2[..., None] * np.fft.fft2(psi, axes=(0, 1)), axes=(0, 1)).real
        lap_th = np.fft.ifft(-(m**2) * np.fft.fft(psi, axis=-1), axis=-1).real
        return nonlinear + d_t * lap + d_r * lap_th

    def modes(self, psi, orders):
        waves = np.exp(1j * np.outer(self.theta, orders))
        return np.einsum("xyt,tm->mxy", psi, waves) * self.dtheta


def smooth_density(shape, lengths, num_angles, *, polar=False, seed=0, amplitude=0.25):
    """A positive density of low modes in x, y and theta."""
    rng = np.random.default_rng(seed)
    axes = [np.arange(n) / n for n in shape]
    x, y = np.meshgrid(*axes, indexing="ij")
    theta = 2 * np.pi * np.arange(num_angles) / num_angles
    log_psi = np.zeros((*shape, num_angles))
    for _ in range(6):
        k = rng.integers(-2, 3, 2)
        m = rng.integers(1, 4) if polar else 2 * rng.integers(1, 3)
        phase = 2 * np.pi * (k[0] * x + k[1] * y) + rng.uniform(0, 2 * np.pi)
        log_psi += amplitude * rng.normal() * np.cos(phase[..., None] - m * theta)
    psi = np.exp(log_psi)
    return psi / (psi.sum(-1).mean() * 2 * np.pi / num_angles)
