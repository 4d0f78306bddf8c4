"""SP2OT: progressive partial optimal transport with semantic regularisation, for imbalanced clustering.

C. Zhang, H. Ren, X. He, arXiv 2404.03446; its predecessor P2OT, arXiv 2401.09266. Functions give plans, `SP2OTClustering`
clusters features you have, `PseudoLabeler` drops into a training loop of yours.
"""

from lab.clustering.sp2ot.certificate import first_order_spread
from lab.clustering.sp2ot.deep import PseudoLabeler, self_label, soft_cross_entropy
from lab.clustering.sp2ot.estimator import SP2OTClustering
from lab.clustering.sp2ot.heads import CosineHead
from lab.clustering.sp2ot.schedule import RhoSchedule
from lab.clustering.sp2ot.semantic import objective, relative_weight, sp2ot_plan
from lab.clustering.sp2ot.similarity import knn_similarity
from lab.clustering.sp2ot.transport import partial_uot

__all__ = [
    "CosineHead",
    "PseudoLabeler",
    "RhoSchedule",
    "SP2OTClustering",
    "first_order_spread",
    "knn_similarity",
    "objective",
    "partial_uot",
    "relative_weight",
    "self_label",
    "soft_cross_entropy",
    "sp2ot_plan",
]
