"""Texts of 1 to over 300 tokens: the demo's sentences, words repeated, other languages, odd Unicode."""

from __future__ import annotations

from pathlib import Path

DEMO = tuple(
    (Path(__file__).parents[2] / "examples" / "sentences.txt").read_text(encoding="utf-8").splitlines()
)

_OTHERS = (
    "",
    " ",
    "a",
    "ok",
    "  leading and trailing spaces \t\n",
    "UPPER CASE AND lower case, MiXeD",
    "Der Arzt verschrieb der Patientin ein stärkeres Schmerzmittel.",
    "La banque a refusé le virement parce que le compte était bloqué.",
    "El ministro dimitió después de publicarse el informe.",
    "Пациент был выписан через три дня после операции.",
    "銀行は住宅ローンの金利を引き上げた。",
    "病人对青霉素过敏。",
    "تمت الموافقة على طلب القرض أمس",
    "המנורה כבתה באמצע הלילה",
    "डॉक्टर ने दवा बदल दी।",
    "이 약은 식후에 복용하세요.",
    "Ο ασθενής αναρρώνει γρήγορα.",  # noqa: RUF001
    "naïve café, coöperate, Ångström, ﬁne ligature, İstanbul, ẞ and ß",
    "cafe\u0301 decomposed and café composed",
    "emoji 😀 👩‍⚕️ 🏦 and a flag 🇩🇪",
    "zero\u200bwidth\u200djoiner and\u00a0no-break\u2028separators\ufeff",
    "control\x00characters\x07inside\x1b[0m",
    "mathematics: ∑ x² ≤ ∞, ½ of ℝ",  # noqa: RUF001
    "[CLS] special [SEP] tokens [MASK] written out [PAD]",
    "https://example.org/path?query=value&other=1#part",
    "a" * 99 + " " + "b" * 101 + " words at the tokenizer's limit",
    "0123456789 3.14159 1,000,000 -42 1e-9 0xDEADBEEF",
    "\U000e0001\U0001f3fb private \ue000 use",
)

_LENGTHS = (*range(2, 24, 3), 40, 64, 96, 127, 128, 200, 252, 253, 254, 255, 256, 257, 300, 700)
_REPEATED = tuple(" ".join((DEMO[n % 200].rstrip(".").split() * n)[:n]) for n in _LENGTHS)
_PARAGRAPHS = tuple(
    " ".join(DEMO[start : start + count]) for start, count in ((0, 3), (40, 8), (80, 16), (120, 40))
)

TEXTS: tuple[str, ...] = (*DEMO, *_OTHERS, *_REPEATED, *_PARAGRAPHS, *(s.upper() for s in DEMO[::20]))
