"""The texts on which tokenizers are compared: Chinese, English, emoji, code, and what usually breaks.

All are in Unicode form NFC, because several tokenizers normalise to it and a round trip could not hold otherwise.
"""

from __future__ import annotations

from typing import Final

CORPUS: Final[tuple[str, ...]] = (
    "Hello, world! I'm sure they'll say it isn't done; we've SEEN it, I'LL bet you'd agree.",
    "hello world",
    " leading space, trailing space ",
    "The year 2024 had 366 days; 1234567890 is ten digits, 3.14159 is not, and 1,000,000 is a million.",
    "Tabs\tand\n\nblank lines\r\n  with  runs   of    spaces\n\n\n",
    "ALLCAPS CamelCase snake_case kebab-case e-mail@example.com https://example.com/a?b=c&d=%20#e",
    "naïve café, Straße, señor, Ångström, ½ cup, 5 µm, 100 °C, “quotes” – dashes — and … dots",
    "你好,世界!我是一个助手,很高兴为你服务。",
    "丹炉把一份问答变成你自己机器上的私人聊天助手。2024年12月31日,共366天,价格是¥1,234.50元。",
    "中英混排:用 LoRA 微调 Qwen2.5-1.5B,学习率 1e-4,训练 3 个 epoch。",
    "繁體中文與標點:「你好嗎?」他說:『很好……謝謝!』生僻字:龘、𠮷、㐂。",
    "Emoji: 🙂🎉👍🏽 👩‍👩‍👧‍👦 🇨🇳 ❤️ ☃ 😀😀😀",
    "日本語のテキスト、カタカナ。 한국어 텍스트입니다. Русский текст. نص عربي. ข้อความภาษาไทย. हिन्दी पाठ.",
    'def greet(name: str = "世界") -> None:\n    """Say hello."""\n'
    '    for i in range(10):\n        print(f"{name}! {i:>3}")\n',
    "#include <stdio.h>\nint main(void) {\n\tprintf(\"%d\\n\", 42);\n\treturn 0; /* done */\n}\n",
    '{"question": "你是谁?", "answer": "我是你的助手。", "n": [1, 2.5, -3e-10, null, true]}',
    "SELECT name, COUNT(*) FROM users WHERE age >= 18 AND city != '北京' GROUP BY name;",
    "# Heading\n\n- item **bold** and `code`\n- [link](http://x.y)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "x² + y² = z², ∑ᵢ aᵢ ≤ ∫₀¹ f(t) dt, α → β, ¬(p ∧ q)",
    "\n",
    "   ",
    "a",
    "。",
)  # fmt: skip
