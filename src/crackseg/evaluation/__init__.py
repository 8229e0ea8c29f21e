"""Score probability maps against ground truth: metrics, bootstrap, report and figures."""
