"""The official tasks: layouts, sources and sizes of their files.

The layouts of GLUE's files follow the scripts that make and read them: ``download_glue_data.py`` of GLUE's
authors, which also divides MRPC, and fairseq's ``preprocess_GLUE_tasks.sh``, which has the columns' positions and
drops QQP's broken lines. The files of SST-2 and CoLA were verified completely.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from farsearch.tasks.data import TaskSpec
from farsearch.tasks.layouts import Official, Table, Undivided

__all__ = ["OFFICIAL"]

_GLUE = "nyu-mll/glue"
_WANG = "Wang et al. 2018, GLUE"
_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_SENTENCE = Table(("sentence", "label"), ("sentence",), "label")
_COLA = ("source", "label", "author's mark", "sentence")
_MSR_IDS = ("#1 ID", "#2 ID")

_SINGLE = (
    Official(
        TaskSpec(
            name="cola",
            title="Corpus of Linguistic Acceptability: is a sentence good English?",
            kind="classification",
            labels=("unacceptable", "acceptable"),
            metric="matthews_correlation",
            texts=("sentence",),
            label="label",
            columns=_COLA,
            hub=(_GLUE, "cola"),
            licence="quotes from published linguistics, rights with their publishers",
        ),
        rows={"train": 8_551, "dev": 1_043},
        source=f"Warstadt et al. 2018; {_WANG}",
        folder="CoLA",
        table=Table(_COLA, ("sentence",), "label", header=False),
        note="the files have no header",
    ),
    Official(
        TaskSpec(
            name="sst2",
            title="Stanford Sentiment Treebank: is a phrase of a film review positive?",
            kind="classification",
            labels=("negative", "positive"),
            metric="accuracy",
            texts=("sentence",),
            label="label",
            hub=(_GLUE, "sst2"),
            licence="none stated by its authors",
        ),
        rows={"train": 67_349, "dev": 872},
        source=f"Socher et al. 2013; {_WANG}",
        folder="SST-2",
        table=_SENTENCE,
        note="most rows of train.tsv are phrases of one another's sentences",
    ),
)

_PAIRS = (
    Official(
        TaskSpec(
            name="mrpc",
            title="Microsoft Research Paraphrase Corpus: do two sentences of the news say the same?",
            kind="classification",
            labels=("not_equivalent", "equivalent"),
            metric="accuracy_f1",
            texts=_PAIR,
            label="label",
            hub=(_GLUE, "mrpc"),
            licence="Microsoft's terms, on the page of its download",
        ),
        rows={"train": 3_668, "dev": 408},
        source=f"Dolan and Brockett 2005; {_WANG}",
        folder="MRPC",
        table=Table(("Quality", *_MSR_IDS, "#1 String", "#2 String"), ("#1 String", "#2 String"), "Quality"),
        undivided=Undivided("msr_paraphrase_train.txt", "dev_ids.tsv", _MSR_IDS),
        note="the label comes first; the files begin with a byte-order mark",
    ),
    Official(
        TaskSpec(
            name="stsb",
            title="Semantic Textual Similarity Benchmark: how alike are two sentences, from 0 to 5?",
            kind="regression",
            labels=(),
            metric="pearson_spearman",
            texts=_PAIR,
            label="label",
            hub=(_GLUE, "stsb"),
            licence="differs by source, see LICENSE.txt of the benchmark",
        ),
        rows={"train": 5_749, "dev": 1_500},
        source=f"Cer et al. 2017; {_WANG}",
        folder="STS-B",
        table=Table(
            ("index", "genre", "filename", "year", "old_index", "source1", "source2", *_PAIR, "score"),
            _PAIR,
            "score",
            scores=(0.0, 5.0),
        ),
    ),
    Official(
        TaskSpec(
            name="qqp",
            title="Quora Question Pairs: do two questions ask the same?",
            kind="classification",
            labels=("not_duplicate", "duplicate"),
            metric="accuracy_f1",
            texts=("question1", "question2"),
            label="label",
            hub=(_GLUE, "qqp"),
            licence="Quora's terms of service, non-commercial use",
        ),
        rows={"train": 363_846, "dev": 40_430},
        source=f"Iyer et al. 2017; {_WANG}",
        folder="QQP",
        table=Table(
            ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
            ("question1", "question2"),
            "is_duplicate",
            broken=True,
        ),
        note="some lines are cut in two by a line feed within a question, and two questions are empty: "
        "such rows are left out and counted",
    ),
    Official(
        TaskSpec(
            name="mnli",
            title="Multi-Genre Natural Language Inference: does a sentence follow from another, or contradict it?",
            kind="classification",
            labels=("entailment", "neutral", "contradiction"),
            metric="accuracy",
            texts=("premise", "hypothesis"),
            label="label",
            hub=(_GLUE, "mnli"),
            licence="OANC's licence; fiction in parts CC BY 3.0 and CC BY-SA 3.0",
        ),
        rows={"train": 392_702, "dev": 9_815, "dev mismatched": 9_832},
        source=f"Williams et al. 2018; {_WANG}",
        folder="MNLI",
        table=Table(
            (
                *("index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse"),
                *("sentence1_parse", "sentence2_parse", *_PAIR, "label1", "gold_label"),
            ),
            _PAIR,
            "gold_label",
            ragged=True,
        ),
        dev="dev_matched.tsv",
        more_dev={"mismatched": "dev_mismatched.tsv"},
        hub_dev="validation_matched",
        hub_more_dev={"mismatched": "validation_mismatched"},
        note="the development files have label2 to label5 before gold_label; where a row lacks some of them, its last "
        "cell is the gold label",
    ),
    Official(
        TaskSpec(
            name="qnli",
            title="Question NLI, out of SQuAD: does a sentence answer a question?",
            kind="classification",
            labels=_ENTAILMENT,
            metric="accuracy",
            texts=("question", "sentence"),
            label="label",
            hub=(_GLUE, "qnli"),
            licence="CC BY-SA 4.0, as SQuAD",
        ),
        rows={"train": 104_743, "dev": 5_463},
        source=f"Rajpurkar et al. 2016; {_WANG}",
        folder="QNLI",
        table=Table(("index", "question", "sentence", "label"), ("question", "sentence"), "label"),
    ),
    Official(
        TaskSpec(
            name="rte",
            title="Recognizing Textual Entailment: does a sentence follow from another?",
            kind="classification",
            labels=_ENTAILMENT,
            metric="accuracy",
            texts=_PAIR,
            label="label",
            hub=(_GLUE, "rte"),
            licence="none stated by its authors",
        ),
        rows={"train": 2_490, "dev": 277},
        source="Dagan et al. 2006, Bar Haim et al. 2006, Giampiccolo et al. 2007, Bentivogli et al. 2009; " + _WANG,
        folder="RTE",
        table=Table(("index", *_PAIR, "label"), _PAIR, "label"),
    ),
    Official(
        TaskSpec(
            name="wnli",
            title="Winograd NLI: is a pronoun of a sentence replaced by what it stands for?",
            kind="classification",
            labels=("not_entailment", "entailment"),
            metric="accuracy",
            texts=_PAIR,
            label="label",
            hub=(_GLUE, "wnli"),
            licence="CC BY 4.0",
        ),
        rows={"train": 635, "dev": 71},
        source=f"Levesque, Davis and Morgenstern 2011; {_WANG}",
        folder="WNLI",
        table=Table(("index", *_PAIR, "label"), _PAIR, "label"),
        note="sentences of dev.tsv are those of train.tsv with the other answer: what learns them by heart fails there",
    ),
)

_ANSWERING = (
    Official(
        TaskSpec(
            name="squad",
            title="SQuAD 1.1: which part of a paragraph answers a question?",
            kind="question-answering",
            labels=(),
            metric="squad",
            texts=("question", "context"),
            label="answers",
            hub=("rajpurkar/squad", "plain_text"),
            licence="CC BY-SA 4.0",
        ),
        rows={"train": 87_599, "dev": 10_570},
        source="Rajpurkar et al. 2016",
        train="train-v1.1.json",
        dev="dev-v1.1.json",
    ),
    Official(
        TaskSpec(
            name="squad_v2",
            title="SQuAD 2.0: which part of a paragraph answers a question, if any?",
            kind="question-answering",
            labels=(),
            metric="squad",
            texts=("question", "context"),
            label="answers",
            unanswerable=True,
            hub=("rajpurkar/squad_v2", "squad_v2"),
            licence="CC BY-SA 4.0",
        ),
        rows={"train": 130_319, "dev": 11_873},
        source="Rajpurkar et al. 2018",
        train="train-v2.0.json",
        dev="dev-v2.0.json",
        note="plausible answers of questions that have none are not read",
    ),
)

_EMBEDDED = Official(
    TaskSpec(
        name="reviews",
        title="Short reviews that come with farsearch: is one positive?",
        kind="classification",
        labels=("negative", "positive"),
        metric="accuracy",
        texts=("sentence",),
        label="label",
        licence="CC0 1.0",
    ),
    rows={"train": 576, "dev": 144},
    source="written for farsearch",
    table=_SENTENCE,
)

OFFICIAL: Mapping[str, Official] = MappingProxyType(
    {official.spec.name: official for official in (*_SINGLE, *_PAIRS, *_ANSWERING, _EMBEDDED)}
)
"""The official tasks and the embedded sample by name."""
