"""edwards25519 in plain integers (RFC 8032, section 5.1), to check constants independently."""

from __future__ import annotations

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def add(left: Point, right: Point) -> Point:
    """Return the sum of two points (affine, complete addition law)."""
    (x1, y1), (x2, y2) = left, right
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P)
    return x % P, y % P


def times(factor: int, point: Point) -> Point:
    """Return a multiple of a point."""
    result = IDENTITY
    while factor:
        if factor & 1:
            result = add(result, point)
        point = add(point, point)
        factor >>= 1
    return result


def recover(y: int) -> Point | None:
    """Return a point with this ``y``, or None where there is none (RFC 8032, section 5.1.3)."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if x * x % P == square else None


def small_order_points() -> set[Point]:
    """Return the eight points of small order, as multiples by L of points of full order."""
    found: set[Point] = set()
    y = 2
    while len(found) < 8:
        point = recover(y)
        if point is not None:
            torsion = times(L, point)
            found |= {times(factor, torsion) for factor in range(8)}
        y += 1
    return found


def encoded(point: Point) -> bytes:
    """Return a point's 32-byte encoding."""
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE: Point = next(point for point in [recover(4 * pow(5, -1, P) % P)] if point is not None)
if BASE[0] & 1:
    BASE = (P - BASE[0], BASE[1])
