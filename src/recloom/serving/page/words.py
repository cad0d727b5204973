"""What the page for trying it out says in English -> the same in Chinese."""

from collections.abc import Callable

CHINESE = {
    "Skip to the content": "跳到正文",
    "Pages": "页面",
    "Try it": "试用",
    "Live": "实况",
    "Interface": "接口",
    "Log out": "退出",
    "What comes next?": "接下来是什么？",
    "The lists of one person, as they would get them now.": "某个人此刻会得到的列表。",
    "Put together what somebody did, or name a user, and compare what is recommended out of {} items.":
        "拼出某人做过的事，或给出一个用户，比较从 {} 个物品中推荐了什么。",
    "To the lists below": "到下面的列表",
    "Who": "给谁",
    "User": "用户",
    "Session": "会话",
    "Did lately, the newest first": "最近做过的，最新的在前",
    "Nothing is known of them yet, so they get what is popular. Click on something, and the list changes.":
        "对此人还一无所知，所以给出热门内容。点一下任何一项，列表就会改变。",
    "Type a history instead": "改为输入历史",
    "A history, the oldest first": "历史，最早的在前",
    "Remove {}": "移除 {}",
    "Clear the history": "清空历史",
    "Empty so far. Add items from below.": "还是空的。请从下面添加物品。",
    "Find items by title or id": "按标题或 ID 查找物品",
    "Find": "查找",
    "Found": "找到的",
    "Popular now": "当前热门",
    "Add": "添加",
    "No item has “{}” in its title or id. Try fewer or shorter words.":
        "没有物品的标题或 ID 含有“{}”。试试更少或更短的词。",
    "Type item ids": "输入物品 ID",
    "Ids, a comma or a new line between them": "ID，用逗号或换行隔开",
    "Add to the history": "加入历史",
    "Another user's id": "另一个用户的 ID",
    "A user's id": "用户 ID",
    "Show": "显示",
    "Start a new session": "开始新会话",
    "Situation": "情境",
    "Length of the lists": "列表长度",
    "Language": "语言",
    "not known": "未知",
    "Apply": "应用",
    "The variants of “{}”": "实验“{}”的各个方案",
    "The models in service": "服务中的各个模型",
    "Recommended": "推荐",
    "The list marked “theirs” counts as shown to this person, and a click is stored as an event.":
        "标有“本人”的列表算作已向此人展示，点击会存为事件。",
    "Your key may look but not store events; log in with an admin's to click.":
        "您的密钥只能查看，不能存储事件；要点击，请用管理员密钥登录。",
    "theirs": "本人",
    "served by": "由以下提供：",
    "a fallback": "后备",
    "{} unknown item skipped": "跳过了 {} 个未知物品",
    "{} unknown items skipped": "跳过了 {} 个未知物品",
    "{} of {} also in {}": "{} / {} 也在 {} 中",
    "score": "得分",
    "Why": "为什么",
    "Green: what the score loses without that interaction; violet: what the score is the sum of":
        "绿色：没有这次交互，得分会少多少；紫色：得分由哪些部分相加而成",
    "Click": "点击",
    "Nothing is left to recommend: everything that may be shown was in the history, or the rules leave nothing.":
        "没有可推荐的了：可以展示的都在历史里，或者被规则排除。",
    "No list was made. Put right what is said above, or start over:":
        "没有生成列表。请改正上面指出的问题，或重新开始：",
    "start over": "重新开始",
    "not in the catalogue, skipped": "目录中没有，已跳过",
    "from the log": "来自日志",
    "pinned": "置顶",
    "who takes it (id)": "谁会选它（ID）",
    "what it says (text)": "它的文字",
    "id and text": "ID 与文字",
    "its popularity": "它的热度",
    "what any item gets": "任何物品都有的",
    "time": "时间",
    "image": "图片",
}  # fmt: skip


def in_language(language: str) -> Callable[[str], str]:
    """Return what says a sentence of the page in a language: `zh`, and English for any other; data stay as they are."""
    return (lambda words: CHINESE.get(words, words)) if language == "zh" else (lambda words: words)
