/** What the stand-in server says. */
export const REASONING = `先想想光进入大气之后会发生什么。

- 太阳光包含各种波长;
- 空气分子远小于波长,散射强度与 $\\lambda^{-4}$ 成正比;
- 蓝光波长短,因此散射更强。

紫光波长更短,但太阳光里紫光较少,人眼对它也不敏感。所以看到的是蓝色。`.replace(/,/g, '，').replace(/;/g, '；')

export const ANSWERS = {
  zh: '你好！我是**小炉**，由丹炉在你自己的机器上训练出来的助手。我没有联网，所有对话都只留在这台机器上。\n\n你可以问我任何与示例有关的问题，也可以随便聊聊。',
  en: 'I am a small assistant that was **fine-tuned on this machine**. Nothing you write leaves it.\n\nAsk me about the handbook, or try one of these:\n\n1. What is a learning rate?\n2. How many examples do I need?\n3. Why does the loss go up at the end?',
  code: `快速排序选一个**基准**，把其余元素分成两组，再分别排序：

\`\`\`python
from collections.abc import Sequence


def quicksort(values: Sequence[int]) -> list[int]:
    """Sorts in O(n log n) on average; the pivot is the middle element."""
    if len(values) <= 1:
        return list(values)
    pivot = values[len(values) // 2]
    smaller = [v for v in values if v < pivot]
    equal = [v for v in values if v == pivot]
    larger = [v for v in values if v > pivot]
    return quicksort(smaller) + equal + quicksort(larger)  # 合并三部分
\`\`\`

各种情况下的代价：

| 情况 | 时间 | 空间 | 何时出现 |
|:--|:-:|--:|:--|
| 平均 | $O(n \\log n)$ | $O(\\log n)$ | 随机数据 |
| 最好 | $O(n \\log n)$ | $O(\\log n)$ | 每次都对半分 |
| 最坏 | $O(n^2)$ | $O(n)$ | 基准总是最小或最大的元素 |

平均比较次数满足递推式

$$
C(n) = n - 1 + \\frac{2}{n} \\sum_{k=0}^{n-1} C(k) \\approx 2n \\ln n
$$

## 使用方法

1. 保存为 \`sort.py\`；
2. 在终端里运行：

   \`\`\`bash
   python -c "from sort import quicksort; print(quicksort([3, 1, 2]))"
   \`\`\`

> 数据很大时请用内置的 \`sorted()\`，它是稳定的，也更快。详见 [文档](https://docs.python.org/3/howto/sorting.html)。`,
  sky: `因为空气分子对短波长的光散射得更强，这叫**瑞利散射**：

$$I \\propto \\frac{1}{\\lambda^4}$$

蓝光（约 450 nm）的散射强度大约是红光（约 650 nm）的 $(650/450)^4 \\approx 4.4$ 倍，所以从各个方向进入眼睛的多是蓝光。日落时光要穿过更厚的大气，蓝光被散射掉，剩下的就偏红。`,
  long: Array.from({ length: 14 }, (_, i) => `### 第 ${i + 1} 回\n\n很久以前，山里有一座**丹炉**。守炉的人每天添柴、看火、记下火候，从不偷懒。有人问他炼的是什么，他说：“我炼的是耐心。”`).join('\n\n'),
}

const provenance = {
  assistant: '小炉', version: 'v3', engine: 'llamacpp', tokens: 412, tokens_per_second: 96.4, seconds: 4.3,
  finish_reason: 'stop', reasoning_seconds: null,
}

export const SEED = [
  { title: '快速排序怎么写', daysAgo: 0, messages: [{ role: 'user', content: '用 Python 写一个快速排序,并分析复杂度。'.replace(',', '，') }, { role: 'assistant', content: ANSWERS.code, provenance }] },
  { title: '为什么天空是蓝色的？', daysAgo: 0.02, messages: [{ role: 'user', content: '为什么天空是蓝色的？' }, { role: 'assistant', content: ANSWERS.sky, reasoning: REASONING, provenance: { ...provenance, reasoning_seconds: 6.4 } }] },
  { title: 'Notes on learning rates and warm-up for very small data sets', daysAgo: 1, messages: [{ role: 'user', content: 'What is a learning rate?' }, { role: 'assistant', content: ANSWERS.en, provenance }] },
  { title: '给新同事的欢迎信', daysAgo: 1.2, messages: [] },
  { title: '周报模板', daysAgo: 40, pinned: true, messages: [] },
  { title: '发布说明初稿', daysAgo: 3, messages: [] },
  { title: 'Release checklist', daysAgo: 5, messages: [] },
  { title: '会议纪要整理', daysAgo: 16, messages: [] },
  { title: '训练数据要多少条才够', daysAgo: 75, messages: [] },
  {
    title: '连接失败的例子', daysAgo: 0.1, messages: [
      { role: 'user', content: '总结一下这份手册' },
      { role: 'assistant', content: '这份手册一共分为四章，第一章介绍', status: 'failed', error: { title: '推理引擎在回答过程中退出。', status: 503, detail: '推理引擎在回答过程中退出。', code: 'engine.died', where: 'llamacpp', fix: '引擎正在自动重启，几秒后请重试；若反复出现，请运行 danlu doctor。' } },
    ],
  },
] // prettier-ignore
