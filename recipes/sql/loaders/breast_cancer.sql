SELECT * FROM breast_cancer
